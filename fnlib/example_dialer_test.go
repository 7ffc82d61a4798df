package fnlib_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fnwire/fnwire/fnlib"
)

// An HTTP server in one function and a client in another. The URL has no port, so net/http dials
// "reduce-0:80", the service "80".
func ExampleNode_Dialer() {
	tb := &exampleTB{}
	defer tb.cleanup()
	w := newWorld(tb, 1)
	mapper, err := fnlib.Join(context.Background(), w.config("map-0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mapper.Close()
	reducer, err := fnlib.Join(context.Background(), w.config("reduce-0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reducer.Close()

	listener, err := reducer.Listen("80")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, r.Method, r.URL.Path, "from", r.RemoteAddr)
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	transport := &http.Transport{DialContext: mapper.Dialer().DialContext}
	client := &http.Client{Transport: transport}
	response, err := client.Get("http://reduce-0/part-7")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close() // was read to its end
	fmt.Print(response.Status, ": ", string(body))
	fmt.Println(err)

	transport.CloseIdleConnections()
	fmt.Println(server.Shutdown(context.Background()))
	fmt.Println(errors.Is(<-served, http.ErrServerClosed))
	// Output:
	// 200 OK: GET /part-7 from map-0:80
	// <nil>
	// <nil>
	// true
}

// gRPC's health service in one function, asked by another. Connections of fnwire are encrypted and both
// ends are members of the job, so gRPC needs no TLS of its own.
func ExampleDialer_DialTarget() {
	tb := &exampleTB{}
	defer tb.cleanup()
	w := newWorld(tb, 1)
	mapper, err := fnlib.Join(context.Background(), w.config("map-0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mapper.Close()
	reducer, err := fnlib.Join(context.Background(), w.config("reduce-0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reducer.Close()

	listener, err := reducer.Listen("grpc")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := grpc.NewServer()
	states := health.NewServer()
	states.SetServingStatus("reduce", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, states)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	conn, err := grpc.NewClient("passthrough:///reduce-0:grpc",
		grpc.WithContextDialer(mapper.Dialer().DialTarget),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{Service: "reduce"})
	fmt.Println(answer.GetStatus(), err)

	fmt.Println(conn.Close())
	server.GracefulStop()
	fmt.Println(<-served)
	// Output:
	// SERVING <nil>
	// <nil>
	// <nil>
}

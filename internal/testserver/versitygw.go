package testserver

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// What a VersityGW lets in. They are no secrets: it listens on loopback, or in a lab.
const (
	S3AccessKey = "fnwire-test"
	S3SecretKey = "fnwire-test-only"
	S3Bucket    = "states"
)

// S3Env are the variables by which a client gets the credentials of a VersityGW, and looks for no others.
func S3Env() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": S3AccessKey, "AWS_SECRET_ACCESS_KEY": S3SecretKey, "AWS_SESSION_TOKEN": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "",
	}
}

// VersityGW is an S3 server that keeps objects as files below dir, whose file system must have extended attributes, with one
// bucket, S3Bucket. addr is where it listens. Clients get their credentials by S3Env.
// *MissingError: it is not installed.
func VersityGW(dir, addr string) (Program, error) {
	path, err := findVersityGW()
	if err != nil {
		return Program{}, err
	}
	return Program{
		Name: "versitygw", Path: path, Addr: addr, ask: askHTTP, Dirs: []string{filepath.Join(dir, S3Bucket)},
		URL:  "s3://" + S3Bucket + "?endpoint=http://" + addr + "&region=us-east-1",
		Env:  []string{"ROOT_ACCESS_KEY=" + S3AccessKey, "ROOT_SECRET_KEY=" + S3SecretKey},
		Args: []string{"--port", addr, "--quiet", "--keep-alive", "posix", dir},
	}, nil
}

// StartVersityGW starts a VersityGW on a free port of loopback.
func StartVersityGW(ctx context.Context, dir string) (*Server, error) {
	return start(ctx, func(addr string) (Program, error) { return VersityGW(dir, addr) })
}

// findVersityGW looks on PATH and where `make versitygw` installs it.
func findVersityGW() (string, error) {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	if cache, err := os.UserCacheDir(); err == nil {
		found, err := filepath.Glob(filepath.Join(cache, "fnwire", "versitygw-*", "versitygw"))
		if err == nil && len(found) > 0 {
			return slices.Max(found), nil
		}
	}
	return "", &MissingError{"versitygw", "make versitygw"}
}

// askHTTP wants any answer. It asks from the network namespace of the calling thread, and so by no client that dials elsewhere.
func askHTTP(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", http.NoBody)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

package footprint_test

import (
	"encoding/json"
	"fmt"

	"github.com/fnwire/fnwire/experiments/footprint"
	"github.com/fnwire/fnwire/experiments/workload"
)

// What the experiment asks of the sender, as it goes over the wire.
func Example() {
	b, err := json.Marshal(footprint.SendArgs{
		To: "lean-2", Path: "direct", Source: workload.Source{Parts: []workload.Part{{Path: "/usr/bin/git", Bytes: 1 << 20}}},
	})
	fmt.Println(footprint.OpSend, string(b), err)
	// Output:
	// send {"to":"lean-2","path":"direct","source":{"parts":[{"path":"/usr/bin/git","offset":0,"bytes":1048576}]}} <nil>
}

package faas

import (
	"strings"
	"testing"
)

func TestFunctionName(t *testing.T) {
	for s, want := range map[string]string{
		"f": "f", "f:$LATEST": "f", "000000000000:function:f": "f", "000000000000:function:f:$LATEST": "f",
		"arn:aws:lambda:us-east-1:000000000000:function:f": "f", "arn:aws-cn:lambda:x:0:function:f:$LATEST": "f",
		"": "", "f:1": "", ":f": "", "f:": "f", "arn:aws:s3:::x": "", "0:function:f:1": "", "0:function:f:$LATEST:x": "", "0:function": "",
	} {
		got, err := functionName(s, "")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	if _, err := functionName("f", "2"); err == nil {
		t.Error("a version that does not exist")
	}
}

func FuzzFunctionName(f *testing.F) {
	for _, s := range []string{"f", "f:$LATEST", "0:function:f", "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST", "::", "f:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := functionName(s, "")
		if err != nil {
			return
		}
		if name == "" || strings.Contains(name, ":") || !strings.Contains(s, name) {
			t.Fatalf("%q: %q", s, name)
		}
		if again, err := functionName("arn:aws:lambda:us-east-1:000000000000:function:"+name, "$LATEST"); err != nil || again != name {
			t.Fatalf("%q: %q, then %q, %v", s, name, again, err)
		}
	})
}

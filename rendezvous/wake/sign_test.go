package wake_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The vector of the libraries that Standard Webhooks publishes.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = "1614265330"
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var atVector = time.Unix(1614265330, 0)

func secret(t testing.TB, s string) wake.Secret {
	t.Helper()
	k, err := wake.ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func headers(h map[string]string) func(string) string { return func(k string) string { return h[k] } }

func TestVector(t *testing.T) {
	k := secret(t, vectorSecret)
	if got := wake.Sign([]wake.Secret{k}, vectorID, vectorTime, []byte(vectorBody)); got != vectorSignature {
		t.Errorf("signature %s", got)
	}
	h := headers(map[string]string{"webhook-id": vectorID, "webhook-timestamp": vectorTime, "webhook-signature": vectorSignature})
	if _, err := wake.VerifyAt(h, []byte(vectorBody), atVector, []wake.Secret{k}); !errors.Is(err, wake.ErrEvent) {
		t.Errorf("signature accepted, body of another kind: %v", err)
	}
}

func goldenEvent(t testing.TB) wake.Event {
	t.Helper()
	key, err := job.ParseKey("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	return wake.Event{
		Type: wake.EventType, Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		Data: wake.Data{Job: key.ID(), Name: "reduce-0", Reason: wake.Called, Caller: "map-3", Parked: 1},
	}
}

const golden = `{"type":"fnwire.wake","timestamp":"2026-11-22T12:00:00Z","data":{"job":"@","name":"reduce-0","reason":"called","caller":"map-3","parked":1}}`

func goldenBody(t testing.TB) []byte {
	t.Helper()
	return []byte(strings.Replace(golden, "@", goldenEvent(t).Data.Job.String(), 1))
}

func TestGolden(t *testing.T) {
	b, err := json.Marshal(goldenEvent(t))
	if err != nil || string(b) != string(goldenBody(t)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestVerify(t *testing.T) {
	k, old := secret(t, vectorSecret), secret(t, "whsec_"+strings.Repeat("QUJD", 8))
	body := goldenBody(t)
	signature := wake.Sign([]wake.Secret{k}, "wake_1", vectorTime, body)
	for name, c := range map[string]struct {
		id, time, signature string
		body                []byte
		now                 time.Time
		secrets             []wake.Secret
		want                error
	}{
		"good":               {"wake_1", vectorTime, signature, body, atVector, []wake.Secret{k}, nil},
		"just not old":       {"wake_1", vectorTime, signature, body, atVector.Add(wake.Tolerance), []wake.Secret{k}, nil},
		"just not new":       {"wake_1", vectorTime, signature, body, atVector.Add(-wake.Tolerance), []wake.Secret{k}, nil},
		"two signatures":     {"wake_1", vectorTime, "v1,AAAA v1a,AAAA x " + signature, body, atVector, []wake.Secret{k}, nil},
		"receiver has both":  {"wake_1", vectorTime, signature, body, atVector, []wake.Secret{old, k}, nil},
		"old":                {"wake_1", vectorTime, signature, body, atVector.Add(wake.Tolerance + time.Second), []wake.Secret{k}, wake.ErrSignature},
		"new":                {"wake_1", vectorTime, signature, body, atVector.Add(-wake.Tolerance - time.Second), []wake.Secret{k}, wake.ErrSignature},
		"another secret":     {"wake_1", vectorTime, signature, body, atVector, []wake.Secret{old}, wake.ErrSignature},
		"no secret":          {"wake_1", vectorTime, signature, body, atVector, nil, wake.ErrSignature},
		"zero secret":        {"wake_1", vectorTime, wake.Sign(make([]wake.Secret, 1), "wake_1", vectorTime, body), body, atVector, make([]wake.Secret, 1), wake.ErrSignature},
		"another id":         {"wake_2", vectorTime, signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"another time":       {"wake_1", "1614265331", signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"another body":       {"wake_1", vectorTime, signature, append([]byte(" "), body...), atVector, []wake.Secret{k}, wake.ErrSignature},
		"no id":              {"", vectorTime, signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"full stop in id":    {"wake_1.5", vectorTime, signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"no time":            {"wake_1", "", signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"time is none":       {"wake_1", "now", signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"no signature":       {"wake_1", vectorTime, "", body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"empty signature":    {"wake_1", vectorTime, "v1,", body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"other scheme":       {"wake_1", vectorTime, "v2" + signature[2:], body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"beyond sixteen":     {"wake_1", vectorTime, strings.Repeat("v1,AAAA ", 16) + signature, body, atVector, []wake.Secret{k}, wake.ErrSignature},
		"body beyond limits": {"wake_1", vectorTime, signature, make([]byte, wake.MaxEvent+1), atVector, []wake.Secret{k}, wake.ErrEvent},
	} {
		t.Run(name, func(t *testing.T) {
			h := headers(map[string]string{"webhook-id": c.id, "webhook-timestamp": c.time, "webhook-signature": c.signature})
			e, err := wake.VerifyAt(h, c.body, c.now, c.secrets)
			if !errors.Is(err, c.want) || err == nil && e != goldenEvent(t) {
				t.Errorf("%+v, %v; want %v", e, err, c.want)
			}
		})
	}
}

func TestEventRefuses(t *testing.T) {
	k := secret(t, vectorSecret)
	for _, body := range []string{"", "[]", `{"type":"other"}`, `{"type":"fnwire.wake"}`, strings.Replace(string(goldenBody(t)), "reduce-0", "a.b", 1)} {
		h := headers(map[string]string{
			"webhook-id": "wake_1", "webhook-timestamp": vectorTime, "webhook-signature": wake.Sign([]wake.Secret{k}, "wake_1", vectorTime, []byte(body)),
		})
		if _, err := wake.VerifyAt(h, []byte(body), atVector, []wake.Secret{k}); !errors.Is(err, wake.ErrEvent) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	for _, s := range []string{"", "whsec_", "whsec_QUJD", "whsec_" + strings.Repeat("QUJD", 22), "whsec_!!!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"} {
		if _, err := wake.ParseSecret(s); err == nil || s != "" && strings.Contains(err.Error(), strings.TrimPrefix(s, "whsec_")+"x") || !strings.Contains(err.Error(), "openssl") {
			t.Errorf("%q: %v", s, err)
		}
	}
	if two, err := wake.ParseSecrets(" " + vectorSecret + "\nwhsec_" + strings.Repeat("QUJD", 8) + "\n"); err != nil || len(two) != 2 {
		t.Errorf("%v, %v", two, err)
	}
	if _, err := wake.ParseSecrets("\n"); err == nil {
		t.Error("no secret at all is accepted")
	}
	k := secret(t, vectorSecret)
	if shown := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(shown, "MfKQ") || strings.Contains(shown, "1\xf2\x90") {
		t.Errorf("shown: %s", shown)
	}
}

func FuzzVerify(f *testing.F) {
	k := secret(f, vectorSecret)
	good := wake.Sign([]wake.Secret{k}, "wake_1", vectorTime, goldenBody(f))
	f.Add("wake_1", vectorTime, good, goldenBody(f))
	f.Add(vectorID, vectorTime, vectorSignature, []byte(vectorBody))
	f.Add("", "-1", "v1,", []byte("{}"))
	for _, b := range hostile.Of(goldenBody(f)) {
		f.Add("wake_1", vectorTime, good, b)
	}
	for _, s := range hostile.Strings(good) {
		f.Add("wake_1", vectorTime, s, goldenBody(f))
		f.Add(s, "9223372036854775808", good+" "+good, []byte(vectorBody))
	}
	f.Fuzz(func(t *testing.T, id, at, signature string, body []byte) {
		h := headers(map[string]string{"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signature})
		e, err := wake.VerifyAt(h, body, atVector, []wake.Secret{k})
		if err != nil && !errors.Is(err, wake.ErrSignature) && !errors.Is(err, wake.ErrEvent) {
			t.Fatalf("untyped error %v", err)
		}
		if err == nil && job.CheckName(e.Data.Name) != nil {
			t.Fatalf("event for %q", e.Data.Name)
		}
		// Signed, anything must be read or refused by type.
		h = headers(map[string]string{"webhook-id": "wake_1", "webhook-timestamp": vectorTime, "webhook-signature": wake.Sign([]wake.Secret{k}, "wake_1", vectorTime, body)})
		if _, err := wake.VerifyAt(h, body, atVector, []wake.Secret{k}); err != nil && !errors.Is(err, wake.ErrEvent) {
			t.Fatalf("signed body: %v", err)
		}
	})
}

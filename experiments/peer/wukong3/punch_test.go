package wukong3

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

const (
	ms     = time.Millisecond
	oneWay = 20 * ms
)

// meeting is two punchers behind port-restricted NATs, in virtual time.
type meeting struct {
	net   *natsim.Network
	began time.Time
	hosts [2]*natsim.Host
	ends  [2]*puncher
	at    [2]time.Duration // when each was connected
}

// step does what is due at an end now, and comes back when more is.
func (m *meeting) step(i int, say byte) {
	p := m.ends[i]
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(2 - i)}), 4000)
	for _, kind := range []byte{say, p.tick(m.net.Now())} {
		if kind != 0 {
			m.hosts[i].Send(to, []byte{kind})
		}
	}
	if p.connected() {
		if m.at[i] == 0 {
			m.at[i] = m.net.Now().Sub(m.began)
		}
		return
	}
	m.net.At(p.next, func() {
		if !p.connected() && !m.net.Now().Before(p.next) {
			m.step(i, 0)
		}
	})
}

// meet has two ends punch, the second later by skew, and returns when each was connected.
func meet(resend, skew time.Duration) [2]time.Duration {
	began := time.Unix(0, 0)
	m := &meeting{net: natsim.New(1, began, oneWay), began: began}
	for i := range m.ends {
		nat := m.net.AddNAT(natsim.Kind{Filtering: natsim.AddressPortDependent, Preserve: true}, netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}))
		m.hosts[i] = m.net.AddHost(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 2}), 4000), nat)
		m.hosts[i].Receive = func(now time.Time, _ netip.AddrPort, b []byte) { m.step(i, m.ends[i].heard(b[0], now)) }
		m.net.After(time.Duration(i)*skew, func() {
			m.ends[i] = newPuncher(resend, m.net.Now())
			m.step(i, 0)
		})
	}
	m.net.Run(5 * time.Second)
	return m.at
}

// TestPunchTimes: a round trip if both begin together. If one is late, the other's first packet is lost at its NAT, and the late end is
// told that it is heard by nothing but the answer to what it sends again: after 250 ms, unless the other has data to send.
func TestPunchTimes(t *testing.T) {
	const udt = 250 * ms
	for _, tt := range []struct {
		resend, skew time.Duration
		want         [2]time.Duration
	}{
		{udt, 0, [2]time.Duration{2 * oneWay, 2 * oneWay}},
		{0, 0, [2]time.Duration{2 * oneWay, 2 * oneWay}},
		{udt, 100 * ms, [2]time.Duration{100*ms + 3*oneWay, 100*ms + 4*oneWay + udt}},
		{0, 100 * ms, [2]time.Duration{100*ms + oneWay, 100*ms + 2*oneWay}}, // of many packets one arrives as soon as the NAT lets it
	} {
		if got := meet(tt.resend, tt.skew); got != tt.want {
			t.Errorf("resend %v, skew %v: connected after %v, want %v", tt.resend, tt.skew, got, tt.want)
		}
	}
}

// TestPunchData: data is a sign that the other end is connected.
func TestPunchData(t *testing.T) {
	p := newPuncher(250*ms, time.Unix(0, 0))
	p.data()
	if !p.connected() || p.tick(time.Unix(9, 0)) != 0 || p.heard(udpAgreed, time.Unix(9, 0)) != udpConnected {
		t.Errorf("%+v", p)
	}
}

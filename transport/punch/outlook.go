package punch

// Outlook is what a job has learnt to expect of a hard method for two kinds of NAT.
type Outlook uint8

// The outlooks.
const (
	OutlookOpen Outlook = iota // nothing is known
	OutlookGood                // it worked: the birthday method starts at once
	OutlookPoor                // it failed again and again: it is tried rarely
)

// Outlooks is what a job has learnt of each pair of kinds for which there is a hard method, in either order: two bits each, an
// Outlook, 0 for a value that is not known. From the lowest: stable and sequential, stable and random, sequential twice.
type Outlooks uint8

// Of returns the outlook for two NATs.
func (o Outlooks) Of(a, b NAT) Outlook {
	at, ok := outlookBits(a, b)
	if v := Outlook(o >> at & 3); ok && v <= OutlookPoor {
		return v
	}
	return OutlookOpen
}

// With returns o with another outlook for two NATs.
func (o Outlooks) With(a, b NAT, v Outlook) Outlooks {
	at, ok := outlookBits(a, b)
	if !ok {
		return o
	}
	return o&^(3<<at) | Outlooks(v)<<at
}

func outlookBits(a, b NAT) (at int, ok bool) {
	switch x, y := min(a.Mapping, b.Mapping), max(a.Mapping, b.Mapping); {
	case x == MappingStable && y == MappingSequential:
		return 0, true
	case x == MappingStable && y == MappingRandom:
		return 2, true
	case x == MappingSequential && y == MappingSequential:
		return 4, true
	}
	return 0, false
}

// Over returns what o says, and what below says where o says nothing.
func (o Outlooks) Over(below Outlooks) Outlooks {
	for mask := Outlooks(3); mask != 0; mask <<= 2 {
		if o&mask == 0 {
			o |= below & mask
		}
	}
	return o
}

func (m *Machine) outlook() Outlook { return m.hard.outlooks.Of(m.here, m.there) }

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The core drops, on the bridge, packets whose source and destination are in one of two sets:
//
//	table bridge lab {
//	  set all { type ipv4_addr . ipv4_addr }
//	  set udp { type ipv4_addr . ipv4_addr }
//	  chain forward { type filter hook forward priority 0
//	    meta protocol ip ip saddr . ip daddr @all drop
//	    meta protocol ip meta l4proto udp ip saddr . ip daddr @udp drop } }
func blockTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyBridge, Name: "lab"}
}

func blockSet(name string) *nftables.Set {
	pairType := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)
	return &nftables.Set{Table: blockTable(), Name: name, KeyType: pairType, Concatenation: true}
}

const (
	blockAll = "all"
	blockUDP = "udp"
)

func addBlockTable() error {
	c, err := nftables.New() // of the thread's namespace
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := c.AddTable(blockTable())
	chain := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	for i, name := range []string{blockAll, blockUDP} {
		set := blockSet(name)
		set.ID = uint32(i + 1) // else one from a variable that all labs share
		if err := c.AddSet(set, nil); err != nil {
			return fmt.Errorf("nftables set: %w", err)
		}
		exprs := meta(expr.MetaKeyPROTOCOL, binaryutil.BigEndian.PutUint16(unix.ETH_P_IP))
		if name == blockUDP {
			exprs = append(exprs, udp()...)
		}
		exprs = append(exprs,
			// Source and destination lie side by side in an IPv4 header.
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 8},
			&expr.Lookup{SourceRegister: 1, SetName: name, SetID: set.ID},
			&expr.Verdict{Kind: expr.VerdictDrop})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables rules of the bridge (the kernel needs nf_tables for bridges): %w", err)
	}
	return nil
}

// pair is packets in one direction between two outside addresses.
type pair struct {
	set      string
	from, to netip.Addr
}

// blocks counts who wants which pair blocked, so that blocks may overlap.
type blocks struct {
	mu    sync.Mutex // guards count, and the order of changes in the kernel
	count map[pair]int
}

// Block drops all packets between the outside addresses of hosts a and b, both ways, until unblock is called.
// Neither host is told. Blocks may overlap; unblock may be called more than once, from any goroutine.
func (l *Lab) Block(a, b string) (unblock func() error, err error) {
	return l.block(blockAll, [2]string{a, b}, [2]string{b, a})
}

// BlockOneWay is Block for packets from one host to the other, not back.
func (l *Lab) BlockOneWay(from, to string) (unblock func() error, err error) {
	return l.block(blockAll, [2]string{from, to})
}

// BlockUDP is Block for UDP only.
func (l *Lab) BlockUDP(a, b string) (unblock func() error, err error) {
	return l.block(blockUDP, [2]string{a, b}, [2]string{b, a})
}

func (l *Lab) block(set string, ways ...[2]string) (func() error, error) {
	var pairs []pair
	for _, w := range ways {
		if w[0] == w[1] {
			return nil, fmt.Errorf("lab: block %q from itself: packets of a host to itself cross no wire", w[0])
		}
		from, err := l.host(w[0])
		if err != nil {
			return nil, err
		}
		to, err := l.host(w[1])
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, pair{set, from.PublicAddr, to.PublicAddr})
	}
	if err := l.changeBlocks(pairs, +1); err != nil {
		return nil, err
	}
	var once sync.Once
	var err error
	return func() error {
		once.Do(func() {
			if err = l.changeBlocks(pairs, -1); errors.Is(err, ErrClosed) {
				err = nil // nothing is left that could be blocked
			}
		})
		return err
	}, nil
}

// changeBlocks adds by to the count of each pair, and tells the kernel of those that changed from or to zero.
func (l *Lab) changeBlocks(pairs []pair, by int) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	l.blocks.mu.Lock()
	defer l.blocks.mu.Unlock()
	if err := l.core.do(func() error { return l.blocks.write(pairs, by) }); err != nil {
		return fmt.Errorf("lab: block: %w", err)
	}
	for _, p := range pairs {
		if l.blocks.count[p] += by; l.blocks.count[p] == 0 {
			delete(l.blocks.count, p)
		}
	}
	return nil
}

func (b *blocks) write(pairs []pair, by int) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, p := range pairs {
		element := []nftables.SetElement{{Key: append(p.from.AsSlice(), p.to.AsSlice()...)}}
		switch n := b.count[p]; {
		case by > 0 && n == 0:
			err = c.SetAddElements(blockSet(p.set), element)
		case by < 0 && n == 1:
			err = c.SetDeleteElements(blockSet(p.set), element)
		}
		if err != nil {
			return err
		}
	}
	return c.Flush()
}

package suite

import (
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/bill"
	"github.com/fnwire/fnwire/experiments/results"
)

// functionMB is the memory of functions on bills: that for which AWS Lambda gives one core.
const functionMB = 1769

// handOverUse is what one hand-over of a state costs: the functions, which wait for its way so long, taken together, and what is
// there for as long as it takes, as a relay that only stands by is, too. Bytes are the state's,
// even if fewer go over the wire. It took place in one region, or two with the profile cross-region.
func (r *run) handOverUse(way string, bytes int64, took, functions time.Duration) bill.Use {
	u := bill.Use{Way: way, Wait: bill.GBSeconds(functionMB, functions)}
	switch way {
	case wayFnwire:
		u.Relay, u.Rendezvous, u.Direct = took, took, bytes
	case wayRelay:
		u.Relay, u.Rendezvous, u.Public = took, took, 2*bytes
	case wayNATS:
		u.Rendezvous, u.Public = took, 2*bytes
	case wayRedis:
		u.Cache = took
	case wayS3:
		u.Puts, u.Gets = bill.S3Requests(bytes)
	}
	r.apart(&u, bytes)
	return u
}

// apart adds that bytes were handed over between places of the profile.
func (r *run) apart(u *bill.Use, bytes int64) {
	switch place, _, _ := strings.Cut(r.settings["profile"], "/"); {
	case place == "cross-az" && u.Way == wayRedis: // one of the functions is not where the node is
		u.Zones = bytes
	case place == "cross-region":
		u.Regions = bytes
	}
}

// billHandOver notes what the uses of one hand-over cost and, if they have servers, how many such an hour make those as cheap as S3's requests.
func billHandOver(rec *results.Record, bytes int64, uses ...bill.Use) {
	prices := bill.Default()
	rec.Bill = prices.Charges(uses...)
	var hour bill.Use
	for _, u := range uses {
		for d, there := range map[*time.Duration]time.Duration{&hour.Cache: u.Cache, &hour.Relay: u.Relay, &hour.Rendezvous: u.Rendezvous} {
			if there > 0 {
				*d = time.Hour
			}
		}
	}
	if hour != (bill.Use{}) {
		puts, gets := bill.S3Requests(bytes)
		rec.Measured["break_even_per_hour"] = prices.BreakEven(hour, puts, gets)
	}
}

// fromMS is the inverse of ms.
func fromMS(ms float64) time.Duration { return time.Duration(ms * 1e6) }

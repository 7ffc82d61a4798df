// Package bill says what a measurement would have cost on AWS. Nothing is measured here: a [Use] says what was used, and
// prices.json, one dated file, what that costs, with a source for each price.
//
// Functions are billed for memory times time, whatever they do. A bill keeps apart for what: work, start, and waiting, which is charged to
// the path or store that was waited for ([results.Charge.For]).
//
// A server is paid by the hour, whoever uses it. A measurement is charged for it as if it had the server to itself for as long as it took, and
// the server were there for no longer. It costs more in fact if the server is idle at other times, and less if others use it at the same time: how
// many hand-overs share its hour no measurement knows. So beside that stands [Prices.BreakEven], how many an hour make the server as cheap as the
// requests to S3 that would do the same.
//
// Transfer is free between functions and S3. It is charged each way at an instance that is reached by its public address, as a relay is and the rendezvous'
// store, and between zones. That from one function to another by their public addresses is assumed to be free, and is on the bill with its
// bytes and no dollars: whether it is has been seen on no bill (see prices.json, function-gb).
package bill

import (
	"time"

	"github.com/fnwire/fnwire/experiments/results"
)

// What causes function time, if no path or store does.
const (
	ForWork  = "work"
	ForStart = "start"
)

// Use is what was used. The zero value is nothing.
type Use struct {
	// Way is the path or store by which states went: all is charged to it that is neither work nor start.
	Way string

	Invocations       int     // of functions
	Work, Start, Wait float64 // GB-seconds of functions; a GB has 1,024 MB
	Puts, Gets        int     // requests to S3; the former are also POST, COPY and LIST

	Cache      time.Duration // for which a cache node was there
	Relay      time.Duration // a relay, on an instance of its own with a public address
	Rendezvous time.Duration // likewise

	Direct  int64 // bytes from one function to another by their public addresses
	Public  int64 // bytes that came to an instance by its public address, or left it so
	Zones   int64 // bytes that went from one zone to another
	Regions int64 // bytes that went from one region to another
}

// GBSeconds is what a function of so much memory is billed for being there so long.
func GBSeconds(memoryMB int, d time.Duration) float64 {
	return float64(memoryMB) / 1024 * d.Seconds()
}

// Charges is the bill, without what was not used.
func (p Prices) Charges(uses ...Use) []results.Charge {
	var out []results.Charge
	for _, u := range uses {
		for _, c := range []struct {
			item, cause string
			quantity    float64
			price       Name
		}{
			{"function time", ForWork, u.Work, FunctionGBSecond},
			{"function time", ForStart, u.Start, FunctionGBSecond},
			{"function time, waiting", u.Way, u.Wait, FunctionGBSecond},
			{"function requests", ForWork, float64(u.Invocations), FunctionRequest},
			{"S3 PUT", u.Way, float64(u.Puts), S3Put},
			{"S3 GET", u.Way, float64(u.Gets), S3Get},
			{"cache node", u.Way, u.Cache.Hours(), CacheHour},
			{"relay instance", u.Way, u.Relay.Hours(), InstanceHour},
			{"rendezvous instance", u.Way, u.Rendezvous.Hours(), InstanceHour},
			{"public addresses", u.Way, (u.Relay + u.Rendezvous).Hours(), AddressHour},
			{"transfer at public addresses", u.Way, gigabytes(u.Public), PublicGB},
			{"transfer between zones", u.Way, 2 * gigabytes(u.Zones), ZoneGB}, // at both ends
			{"transfer between regions", u.Way, gigabytes(u.Regions), RegionGB},
			{"transfer between functions (unverified)", u.Way, gigabytes(u.Direct), FunctionGB},
		} {
			if c.quantity != 0 {
				out = append(out, results.Charge{
					Item: c.item, For: c.cause, Quantity: c.quantity, Unit: units()[c.price], Dollars: c.quantity * p.Of(c.price),
				})
			}
		}
	}
	return out
}

func gigabytes(n int64) float64 { return float64(n) / 1e9 }

// Total is the sum of a bill, in dollars.
func Total(charges []results.Charge) (dollars float64) {
	for _, c := range charges {
		dollars += c.Dollars
	}
	return dollars
}

// BreakEven is how many hand-overs an hour, of so many requests to S3 each, cost as much as servers do for an hour (their use is then
// time.Hour each). With more than that the servers are cheaper.
func (p Prices) BreakEven(servers Use, puts, gets int) float64 {
	return Total(p.Charges(servers)) / Total(p.Charges(Use{Puts: puts, Gets: gets}))
}

// S3Requests is how many requests the driver fnlib/store/s3 makes to put a state of so many bytes (up to 78 GiB), and to get it.
// Removing it is free.
func S3Requests(bytes int64) (puts, gets int) {
	const part = 8 << 20
	parts := int((bytes + part - 1) / part)
	switch {
	case bytes == 0: // there is no byte to get, and then it asks how many there are
		return 1, 2
	case bytes < part:
		return 1, 1
	}
	return parts + 2, parts // an upload is begun and completed
}

package bill

import (
	"bytes"
	_ "embed" // prices.json
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Name is what a price is known by.
type Name string

// The prices.
const (
	FunctionGBSecond Name = "function-gb-second"
	FunctionRequest  Name = "function-request"
	S3Put            Name = "s3-put"
	S3Get            Name = "s3-get"
	CacheHour        Name = "cache-hour"
	InstanceHour     Name = "instance-hour"
	AddressHour      Name = "address-hour"
	ZoneGB           Name = "zone-gb" // each way
	RegionGB         Name = "region-gb"
	PublicGB         Name = "public-gb"   // each way, at an instance
	FunctionGB       Name = "function-gb" // from one function to another
)

// The units.
const (
	unitTime    = "GB-s" // of memory; a GB has 1,024 MB
	unitRequest = "request"
	unitHour    = "hour"
	unitBytes   = "GB" // 10^9 bytes
)

// units are those of the prices that a file must have, each once.
func units() map[Name]string {
	return map[Name]string{
		FunctionGBSecond: unitTime, FunctionRequest: unitRequest, S3Put: unitRequest, S3Get: unitRequest,
		CacheHour: unitHour, InstanceHour: unitHour, AddressHour: unitHour, ZoneGB: unitBytes, RegionGB: unitBytes, PublicGB: unitBytes, FunctionGB: unitBytes,
	}
}

// Where a price is from.
const (
	Provider  = "provider"  // the provider's own words or price list, if in a copy
	Secondary = "secondary" // what somebody else says of it
	Assumed   = "assumed"   // nobody has seen it on a bill
)

// Price is what one thing costs.
type Price struct {
	Name    Name    `json:"name"`
	What    string  `json:"what"`
	Per     string  `json:"per"`
	Dollars float64 `json:"dollars"` // 0 or more
	Trust   string  `json:"trust"`   // Provider, Secondary or Assumed
	Source  string  `json:"source"`
}

// Prices are all prices, on a date and in a region.
type Prices struct {
	Date   time.Time
	Region string
	List   []Price // in the order of the file
}

//go:embed prices.json
var file []byte

// Default returns the prices of prices.json.
func Default() Prices {
	p, err := parse(file)
	if err != nil {
		panic(err) // a test reads it
	}
	return p
}

// parse reads a file of prices, in which nothing may be missing, twice or unknown.
func parse(b []byte) (Prices, error) {
	var f struct {
		Date   string  `json:"date"` // as time.DateOnly
		Region string  `json:"region"`
		Prices []Price `json:"prices"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return Prices{}, fmt.Errorf("bill: prices: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Prices{}, errors.New("bill: prices: something follows them")
	}
	date, err := time.Parse(time.DateOnly, f.Date)
	if err != nil || f.Region == "" {
		return Prices{}, fmt.Errorf("bill: prices: of which date and region: %q, %q", f.Date, f.Region)
	}
	missing := units()
	for _, p := range f.Prices {
		unit, ok := missing[p.Name]
		switch {
		case !ok:
			return Prices{}, fmt.Errorf("bill: prices: %q is unknown or there twice", p.Name)
		case p.Per != unit:
			return Prices{}, fmt.Errorf("bill: prices: %s is per %q, want %q", p.Name, p.Per, unit)
		case p.Dollars < 0, p.Dollars == 0 && p.Trust != Assumed:
			return Prices{}, fmt.Errorf("bill: prices: %s costs %v; only what is assumed may cost nothing", p.Name, p.Dollars)
		case p.What == "", p.Source == "", !slices.Contains([]string{Provider, Secondary, Assumed}, p.Trust):
			return Prices{}, fmt.Errorf("bill: prices: %s does not say of what and from where it is: what %q, source %q, trust %q", p.Name, p.What, p.Source, p.Trust)
		}
		delete(missing, p.Name)
	}
	if len(missing) > 0 {
		return Prices{}, fmt.Errorf("bill: prices: there is no %v", slices.Sorted(maps.Keys(missing)))
	}
	return Prices{Date: date, Region: f.Region, List: f.Prices}, nil
}

// Of returns what a thing costs, in dollars.
func (p Prices) Of(n Name) float64 {
	i := slices.IndexFunc(p.List, func(q Price) bool { return q.Name == n })
	return p.List[i].Dollars // parse has seen to it that all are there
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/rendezvous"
)

// remedies says what to do about errors, the first that matches.
var remedies = []struct {
	is     error
	remedy string
}{
	{errStoreAway, "is it running, and is the URL of --store, or FNWIRE_STORE, right?"},
	{fnlib.ErrFenced, "give each running instance a name of its own"},
	{rendezvous.ErrNotAllowed, "check FNWIRE_JOB_KEY; `fnwire keygen --id` prints its job ID"},
	{rendezvous.ErrUnauthorized, "check FNWIRE_CREDS and FNWIRE_JOB_KEY"},
	{rendezvous.ErrNoService, "start `rendezvous --nats` for it, or check FNWIRE_URL"},
	{rendezvous.ErrUnreachable, "is it running (`fnwire dev` starts one), and is FNWIRE_URL right?"},
	{rendezvous.ErrStale, "set this machine's clock"},
	{rendezvous.ErrHeld, "choose another --name"},
	{fnlib.ErrNoDirect, "--path auto uses a relay where NATs cannot be punched"},
	{fnlib.ErrRef, "check FNWIRE_JOB_KEY, and whether the ref is whole"},
	{fnlib.ErrExpired, "put --ttl sets how long a state is kept"},
	{fnlib.ErrReadOut, "put --reads sets how often"},
	{fnlib.ErrNotFound, "who has put it must still run, or have spilled it to the store that --store names here too"},
	{fnlib.ErrLink, "the state was not confirmed; send it again"},
	{context.DeadlineExceeded, "--timeout sets how long to wait"},
}

// plainError shows a text of its own in place of the error's.
type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// explain makes an error one line for people.
func (c *common) explain(err error) error {
	text := strings.NewReplacer("\r\n", "; ", "\n", "; ", "fnlib: ", "").Replace(err.Error())
	// Go's words for it, at whatever depth, for "--timeout has run out".
	text = strings.ReplaceAll(text, context.DeadlineExceeded.Error(), fmt.Sprintf("gave up after %v", c.timeout))
	for _, r := range remedies {
		if errors.Is(err, r.is) {
			text += " (" + r.remedy + ")"
			break
		}
	}
	return &plainError{printable(text), err}
}

// printable takes out what would steer a terminal: part of the text may come from a peer.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

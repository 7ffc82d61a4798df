package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

const (
	storesFile    = "fnwire-stores.json" // in the data directory: whose store is in which account
	storePrefix   = "STORE-"             // of the accounts' names
	storesLook    = 5 * time.Second      // between two looks at what jobs do with their stores
	storeIdle     = 10 * time.Minute     // empty and without a connection, and a store is gone
	storeSetup    = 5 * time.Second
	maxStores     = 1024
	minStore      = 1 << 20 // bytes
	bytesPerState = 4 << 10 // of a store for each message that it may hold: small ones cost memory
)

var errBarred = errors.New("this job has changed the settings of its store")

// stores gives jobs JetStream accounts of the embedded NATS, one each: what is in an account cannot be named from another, neither
// directly nor by having JetStream answer, deliver or copy there. Accounts of nats-server are for ever, so there are as many as stores may be,
// and they are given to one job after another.
type stores struct {
	e    *embedded
	log  *slog.Logger
	stop context.CancelFunc // nil before start
	done sync.WaitGroup

	mu       sync.Mutex // guards what follows
	perJob   int64      // bytes
	most     int        // stores
	accounts []*storeAccount
}

// storeAccount is the place of one store.
type storeAccount struct {
	account *natsserver.Account
	job     job.ID // zero: free
	asked   time.Time
	config  string // of the stream
	barred  bool   // the job has changed that
}

// start finds the stores that there were. Whoever asks for one meanwhile waits.
func (s *stores) start(e *embedded, c *config, admit func(*stores)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.e, s.log = e, c.Logger
	admit(s)
	whose, err := s.load()
	if err != nil {
		return fmt.Errorf("stores: %w", err)
	}
	total := min(c.StoreBytes, e.ns.JetStreamConfig().MaxStore)
	s.perJob = min(c.JobStoreBytes, total/int64(max(len(whose), 1)))
	if s.perJob < minStore {
		return fmt.Errorf("stores: the disk of the data directory has no room: %d bytes for all of them", total)
	}
	s.most = int(min(total/s.perJob, maxStores))
	if err := s.recover(whose); err != nil {
		return fmt.Errorf("stores: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Go(func() {
		ticker := time.NewTicker(storesLook)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				s.collect(now)
			}
		}
	})
	return nil
}

func (s *stores) close() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
}

// account returns the account in which a job's store is, and makes one if need be. It fails if there is no room for another.
func (s *stores) account(id job.ID) (*natsserver.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := -1
	for i, a := range s.accounts {
		switch {
		case a.job == id && a.barred:
			return nil, errBarred
		case a.job == id:
			a.asked = time.Now()
			return a.account, nil
		case a.job == (job.ID{}) && a.account.NumConnections() == 0:
			at = i
		}
	}
	if at < 0 {
		if len(s.accounts) >= s.most {
			return nil, fmt.Errorf("%d stores of %d bytes each are all there may be", s.most, s.perJob)
		}
		if err := s.grow(len(s.accounts) + 1); err != nil {
			return nil, err
		}
		at = len(s.accounts) - 1
	}
	a := s.accounts[at]
	err := os.RemoveAll(s.dir(a)) // if it was not known any more whose it was
	if a.job, a.asked = id, time.Now(); err == nil {
		err = s.save()
	}
	if err == nil {
		err = s.open(a)
	}
	if err != nil {
		s.free(a)
		return nil, err
	}
	return a.account, nil
}

func (s *stores) dir(a *storeAccount) string { return filepath.Join(s.e.ns.StoreDir(), a.account.Name) }

// grow registers accounts until there are n.
func (s *stores) grow(n int) error {
	for len(s.accounts) < n {
		account, err := s.e.ns.RegisterAccount(storePrefix + strconv.Itoa(len(s.accounts)))
		if err != nil {
			return err
		}
		s.accounts = append(s.accounts, &storeAccount{account: account})
	}
	return nil
}

// open turns JetStream on for an account, which finds what was stored, and makes the bucket if it is not there.
func (s *stores) open(a *storeAccount) error {
	limits := natsserver.JetStreamAccountLimits{
		MaxStore: s.perJob, MaxStreams: 1, MaxConsumers: bucket.MaxConsumers, MaxAckPending: bucket.MaxAckPending, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}
	if err := a.account.EnableJetStream(map[string]natsserver.JetStreamAccountLimits{"": limits}, nil); err != nil {
		return err
	}
	nc, err := nats.Connect("", nats.InProcessServer(s.e.ns), nats.UserInfo(serviceUser, s.e.password), nats.Name(a.account.Name), nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeSetup)
	defer cancel()
	conf := bucket.Config(bucket.Default, 1)
	conf.MaxMsgs = max(s.perJob/bytesPerState, 1000)
	if _, err = js.CreateOrUpdateStream(ctx, conf); err == nil {
		a.config, err = s.config(a)
	}
	return err
}

// config returns all settings of a store's stream.
func (s *stores) config(a *storeAccount) (string, error) {
	d, err := s.e.ns.JszAccount(&natsserver.JSzOptions{Account: a.account.Name, Streams: true, Config: true})
	if err != nil {
		return "", err
	}
	var all []*natsserver.StreamConfig
	for _, st := range d.Streams {
		all = append(all, st.Config)
	}
	b, err := json.Marshal(all)
	return string(b), err
}

// free gives an account's place up, with all that is in it. The lock is held.
func (s *stores) free(a *storeAccount) {
	_ = a.account.DisableJetStream() // fails only if it was not on
	_ = os.RemoveAll(s.dir(a))       // what stays goes when the place is given to another
	a.job, a.config, a.barred = job.ID{}, "", false
	if err := s.save(); err != nil {
		s.log.Warn("rendezvous: stores", "err", err) // one that is empty is found again after a restart
	}
}

// collect frees the stores that are empty and that nobody has used for a while, and bars jobs that have changed theirs: who may have JetStream
// answer may have it answer to JetStream itself. That gets nobody out of his account, nor more bytes, but messages that cost memory.
func (s *stores) collect(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		if a.job == (job.ID{}) {
			continue
		}
		if !a.barred {
			if config, err := s.config(a); err == nil && config != a.config {
				s.bar(a)
			}
		}
		switch {
		case a.account.NumConnections() > 0, a.account.JetStreamUsage().Store > 0:
			a.asked = now
		case now.Sub(a.asked) > storeIdle:
			s.free(a)
		}
	}
}

// bar takes a store from its job for good, with what is in it.
func (s *stores) bar(a *storeAccount) {
	s.log.Error("rendezvous: a job has changed the settings of its store, and loses it", "job", a.job)
	a.barred = true
	_ = a.account.DisableJetStream() // it was on
	all, err := s.e.ns.Connz(&natsserver.ConnzOptions{Account: a.account.Name, Limit: 1 << 20})
	if err != nil {
		s.log.Warn("rendezvous: stores", "err", err)
		return
	}
	for _, c := range all.Conns {
		_ = s.e.ns.DisconnectClientByID(c.Cid) // or it has just gone
	}
}

// path is beside JetStream's own directory, from which nats-server removes what it does not know.
func (s *stores) path() string { return filepath.Join(filepath.Dir(s.e.ns.StoreDir()), storesFile) }

// save writes down whose store is in which account, so that it outlives this process. The lock is held.
func (s *stores) save() error {
	whose := make(map[string]job.ID)
	for _, a := range s.accounts {
		if a.job != (job.ID{}) {
			whose[a.account.Name] = a.job
		}
	}
	b, err := json.Marshal(whose)
	if err != nil {
		return err
	}
	path := s.path()
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// load reads what save has written.
func (s *stores) load() (whose map[string]job.ID, err error) {
	b, err := os.ReadFile(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &whose)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", storesFile, err)
	}
	return whose, nil
}

// recover opens the stores that there were. The lock is held.
func (s *stores) recover(whose map[string]job.ID) error {
	for i := 0; i < maxStores && len(whose) > 0; i++ {
		if err := s.grow(i + 1); err != nil {
			return err
		}
		a := s.accounts[i]
		id, ok := whose[a.account.Name]
		if !ok {
			continue
		}
		delete(whose, a.account.Name)
		if a.job, a.asked = id, time.Now(); id == (job.ID{}) {
			continue
		}
		if err := s.open(a); err != nil {
			return fmt.Errorf("that of job %s: %w", id, err)
		}
	}
	return nil
}

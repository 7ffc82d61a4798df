package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a keeper says when it is ready: a sum of these.
const (
	keeperReady = 1
	keeperProc  = 2 // it has a mount namespace whose /proc shows its PID namespace
	keeperDisk  = 4 // and with a disk of its own at Disk
)

// spawner is the one thread that starts the processes of a lab. They are born into the PID namespace of the keeper. When
// the thread ends, in whatever way, the kernel kills the keeper, and with it everything in that namespace.
type spawner struct {
	work   chan func()
	ended  chan struct{} // closed when the thread has no more work
	keeper *exec.Cmd
	life   *os.File // the keeper ends when this is closed
	mounts bool     // the keeper has some of its own
	disk   bool     // the keeper has one
}

func newSpawner(ctx context.Context) (*spawner, error) {
	s := &spawner{work: make(chan func()), ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(s.ended)
		_ = onThread(func() error {
			err := s.startKeeper(ctx)
			started <- err
			if err != nil {
				return err
			}
			for f := range s.work {
				f()
			}
			return nil
		})
	}()
	if err := <-started; err != nil {
		<-s.ended
		return nil, fmt.Errorf("lab: start keeper of processes: %w", err)
	}
	return s, nil
}

// run calls f on the spawner's thread. It must not be called after close.
func (s *spawner) run(f func() error) error {
	done := make(chan error, 1)
	s.work <- func() { done <- f() }
	return <-done
}

// startKeeper starts the keeper and moves the calling thread's future children into its namespaces.
func (s *spawner) startKeeper(ctx context.Context) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	s.life = ours
	s.keeper = exec.Command("/proc/self/exe", os.Args[1:]...)
	s.keeper.Args[0] = os.Args[0]
	s.keeper.Env = append(os.Environ(), envRole+"="+roleKeeper)
	s.keeper.ExtraFiles = []*os.File{theirs}
	s.keeper.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true,
	}
	if err := s.keeper.Start(); err != nil {
		_ = ours.Close()
		return fmt.Errorf("%w: make PID namespace: %w", ErrUnavailable, err)
	}
	if err = s.join(ctx, theirs); err != nil {
		s.killAll()
		s.reapKeeper()
	}
	return err
}

func (s *spawner) join(ctx context.Context, theirs *os.File) error {
	_ = theirs.Close() // so that the end of the keeper shows as the end of the file
	stop := context.AfterFunc(ctx, func() { _ = s.life.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = s.life.SetReadDeadline(time.Now().Add(20 * time.Second))
	said := make([]byte, 1)
	if _, err := s.life.Read(said); err != nil {
		return errors.Join(ctx.Err(), errNoEnter, err)
	}
	s.mounts = said[0]&keeperProc != 0
	s.disk = s.mounts && said[0]&keeperDisk != 0
	return s.enter()
}

// enter has the future children of the calling thread, which must be its goroutine's own, born into the keeper's namespaces.
func (s *spawner) enter() error {
	dir := fmt.Sprintf("/proc/%d/ns/", s.keeper.Process.Pid)
	if err := setns(dir+"pid", unix.CLONE_NEWPID); err != nil {
		return err
	}
	if !s.mounts {
		return nil
	}
	mnt, err := os.Open(dir + "mnt")
	if err != nil {
		return err
	}
	defer mnt.Close()
	// Threads of a process share their working directory, which would change with the mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the working directory: %w", err)
	}
	if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	return nil
}

// killAll ends all processes of the lab. They still have to be waited for.
func (s *spawner) killAll() { _ = s.keeper.Process.Kill() }

func (s *spawner) reapKeeper() {
	_ = s.keeper.Wait()
	_ = s.life.Close()
}

// close ends the spawner's thread, after killAll and after all processes have been waited for.
func (s *spawner) close() {
	s.reapKeeper()
	close(s.work)
	<-s.ended
}

func setns(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "maker"), nil
}

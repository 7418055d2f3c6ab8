package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// run serves until ctx ends, and then closes the replica.
func (r *replica) run(ctx context.Context) error {
	checking, stopChecking := context.WithCancel(ctx)
	var checks sync.WaitGroup
	checks.Go(func() { r.ready.run(checking) })
	defer checks.Wait()
	defer stopChecking()
	if r.rollcall != nil {
		r.rollcall.Start(r.server.Answer)
	}
	r.await(ctx)
	served := r.serve()
	attrs := append([]any{"address", r.listener.Addr().String(), "replica", r.id, "mode", r.mode}, r.described...)
	r.plain.Info(r.ready.announce(), append(attrs, "redis", string(r.redisStatus(ctx)), "version", buildVersion())...)
	var err error
	select {
	case err = <-served:
		err = errors.Join(err, r.shutdown(ctx, 0, served, len(r.endpoints)-1))
	case <-ctx.Done():
		r.log.Info("stopping", "delay", r.set.ShutdownDelay, "grace", r.set.Grace)
		r.server.Drain()
		select {
		case <-time.After(r.set.ShutdownDelay):
			err = r.shutdown(ctx, r.set.Grace, served, len(r.endpoints))
		case err = <-served: // a server has failed
			err = errors.Join(err, r.shutdown(ctx, 0, served, len(r.endpoints)-1))
		}
	}
	err = errors.Join(err, r.close())
	if err == nil {
		r.log.Info("stopped")
	}
	return err
}

// serve starts the replica's servers. Each tells its end.
func (r *replica) serve() chan error {
	served := make(chan error, len(r.endpoints))
	for _, e := range r.endpoints {
		go func() { served <- e.server.Serve(e.listener) }()
	}
	return served
}

// shutdown ends the servers, of which so many still run, within the grace.
func (r *replica) shutdown(ctx context.Context, grace time.Duration, served chan error, running int) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for _, e := range r.endpoints {
		err = errors.Join(err, e.server.Shutdown(ctx))
	}
	for range running {
		err = errors.Join(err, <-served)
	}
	return err
}

// await waits until the source has been asked and the other replicas know this one,
// but no longer than joinLimit.
func (r *replica) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	select {
	case <-r.ready.checked:
	case <-ctx.Done():
	}
	if r.rollcall == nil {
		return
	}
	select {
	case <-r.rollcall.Ready():
	case <-ctx.Done():
	}
}

// close closes the parts that exist. A part is closed before those that it uses.
func (r *replica) close() error {
	var errs []error
	listeners := []net.Listener{r.listener}
	for _, e := range r.endpoints {
		listeners = append(listeners, e.listener)
	}
	for _, l := range listeners {
		if l == nil {
			continue
		}
		// Serve has closed it already, if it was called.
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if r.profiles != nil {
		errs = append(errs, r.profiles.close())
	}
	if r.fleet != nil {
		errs = append(errs, r.closeOnRedis("distributed tier", r.fleet.Close))
	}
	if r.shadow != nil {
		errs = append(errs, r.closeOnRedis("shadow", r.shadow.Close))
	}
	if r.rollcall != nil {
		errs = append(errs, r.closeOnRedis("rollcall", r.rollcall.Close))
	}
	if r.redis != nil {
		errs = append(errs, r.redis.Close())
	}
	if r.source != nil {
		errs = append(errs, closeSource(r.source))
	}
	if r.traces != nil { // last: closing the others may have ended spans
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		r.traces.close(ctx)
	}
	return errors.Join(errs...)
}

// closeOnRedis closes a part that uses Redis within closeLimit. It is no failure of this
// replica when Redis does not answer in time: every request has its answer, and the other
// replicas learn of its end when its leases run out.
func (r *replica) closeOnRedis(part string, closePart func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := closePart(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		r.log.Warn("stopped without waiting for Redis", "part", part)
		return nil
	}
	return err
}

// closeSource closes what the replica gets its results from. It does not wait for a query
// that hangs, because the process is about to end.
func closeSource(closeIt func() error) error {
	closed := make(chan error, 1)
	go func() { closed <- closeIt() }()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case err := <-closed:
		return err
	case <-limit.C:
		return errors.New("fleetcall: closing the database: a query still runs")
	}
}

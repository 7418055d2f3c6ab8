package redislink

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// verdict is what a failure says of the server.
type verdict struct {
	err            error
	down, downToo  bool // while probes are answered, or fail
	afterOneProbed bool // the server is up if the probe is answered
}

// TestWhatAFailureSaysOfTheServer has each failure once, while probes are answered, and
// then while they fail in the same way.
func TestWhatAFailureSaysOfTheServer(t *testing.T) {
	atOnce, never, probed := verdict{down: true, downToo: true}, verdict{}, verdict{downToo: true, afterOneProbed: true}
	verdicts := map[string]verdict{
		"OOM command not allowed when used memory > 'maxmemory'.": atOnce, "READONLY You can't write against a read only replica.": atOnce,
		"LOADING Redis is loading the dataset in memory": atOnce, "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": atOnce,
		"NOREPLICAS Not enough good replicas to write.": atOnce, "NOAUTH Authentication required.": atOnce,
		"WRONGPASS invalid username-password pair or user is disabled.": atOnce, "CLUSTERDOWN The cluster is down": atOnce, "MASTERDOWN Link with MASTER is down": atOnce,
		"CLUSTERDOWN Hash slot not served": never, "TRYAGAIN Multiple keys request during rehashing of slot": never, "MOVED 1 127.0.0.1:1": never, "ASK 1 127.0.0.1:1": never,
		"NOPERM this user has no permissions to access one of the keys used as arguments": probed, "ERR max number of clients reached": probed,
		"ERR unknown command 'evalsha'": probed, "BUSY Redis is busy running a script.": probed, "ERR Protocol error: invalid bulk length": probed,
	}
	var all []verdict
	for reply, v := range verdicts {
		v.err = replied(t, reply)
		all = append(all, v)
	}
	for err, v := range map[error]verdict{io.EOF: probed, errReset: probed, errRefused: atOnce, redis.ErrPoolTimeout: never, redis.Nil: never, context.Canceled: never} {
		v.err = err
		all = append(all, v)
	}
	for _, v := range all {
		for _, probesFail := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) { v.hold(t, probesFail) })
		}
	}
}

// hold fails a test in which a command meets the failure, and the verdict is another.
func (v verdict) hold(t *testing.T, probesFail bool) {
	probes := &trouble{}
	downs := 0
	l, fake := newLink(t, Config{OnChange: func(c Change) {
		if c.Down {
			downs++
		}
	}}, func(trip []*redis.Cmd) {
		if isProbe(trip[0]) {
			probes.answer(trip)
		} else {
			trip[0].SetErr(v.err)
		}
	})
	want := v.down
	if probesFail {
		probes.refuse(v.err)
		want = v.downToo
	}
	if _, err := l.Do(context.Background(), join("k")); err == nil {
		t.Errorf("%v is no error", v.err)
	}
	synctest.Wait()
	if (downs == 1) != want || downs > 1 {
		t.Errorf("%v, probes fail: %v: it went down %d times", v.err, probesFail, downs)
	}
	if v.afterOneProbed && fake.probes() == 0 {
		t.Errorf("%v: no probe was sent", v.err)
	}
	wantUp(t, l, !want || !probesFail) // a probe that is answered brings it up
	probes.refuse(nil)
	time.Sleep(time.Second)
	l.Close()
}

package main

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// echoes answers each line that it is sent with the same line.
func echoes(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				in := bufio.NewReader(conn)
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					_, _ = conn.Write([]byte(line))
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestAHoldingProxyHoldsOneInSoManyWrites(t *testing.T) {
	const hold = 50 * time.Millisecond
	upstream := echoes(t)
	for _, c := range []struct {
		oneIn, writes int
		held          int64
	}{{0, 20, 0}, {1, 3, 3}} {
		way := startHolding(upstream, c.oneIn, hold)
		conn, err := net.Dial("tcp", way.addr)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		began := time.Now()
		for range c.writes {
			if _, err := conn.Write([]byte("hello\n")); err != nil {
				t.Fatal(err)
			}
			if line, err := in.ReadString('\n'); err != nil || line != "hello\n" {
				t.Fatalf("the echo is %q, %v", line, err)
			}
		}
		if took := time.Since(began); took < time.Duration(c.held)*hold {
			t.Errorf("1 in %d: %d writes took %v", c.oneIn, c.writes, took)
		}
		if held := way.held.Load(); held != c.held {
			t.Errorf("1 in %d: %d of %d writes were held, want %d", c.oneIn, held, c.writes, c.held)
		}
		_ = conn.Close()
		way.close()
	}
}

// after is a moment of a made-up run.
func after(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }

func TestAnExecutionThatTwoReplicasGotCountsOnce(t *testing.T) {
	led := execution{replica: 0, began: after(10), ended: after(110)}
	alone := execution{replica: 2, began: after(12), ended: after(112)}
	var r rounds
	r.add([]outcome{
		{replica: 0, called: after(10), returned: after(111), ran: led, role: coalesce.Leader},
		{replica: 1, called: after(10), returned: after(115), ran: decodeExecution(led.encode()), role: coalesce.RemoteFollower},
		{replica: 2, called: after(10), returned: after(112), ran: alone, role: coalesce.Fallback},
	})
	if r.flown != 1 || r.executions != 2 || r.fellBack != 1 {
		t.Errorf("%d rounds, %d executions, %d fell back; want 1, 2, 1", r.flown, r.executions, r.fellBack)
	}
	if most := quantile(r.waits, 1); most != 5*time.Millisecond {
		t.Errorf("a caller waited %v beyond the function, want 5 ms", most)
	}
}

func TestAWaitForAFrozenRedisCountsFromTheFreeze(t *testing.T) {
	froze, thaw := after(1000), after(3000)
	run := func(replica, began int) execution {
		return execution{replica: replica, began: after(began), ended: after(began + 100)}
	}
	first, later := waitsOf([]outcome{
		{called: after(500), returned: after(600), ran: run(0, 500)},    // over before
		{called: after(950), returned: after(1350), ran: run(0, 1250)},  // followed in vain
		{called: after(950), returned: after(1050), ran: run(1, 950)},   // another's result came
		{called: after(1100), returned: after(1450), ran: run(0, 1350)}, // of the first timeout
		{called: after(1500), returned: after(1603), ran: run(0, 1503)}, // a later one
		{called: after(3100), returned: after(3400), ran: run(0, 3300)}, // thawed
	}, froze, thaw)
	if len(first) != 3 || quantile(first, 1) != 250*time.Millisecond {
		t.Errorf("the first waited %v, want three with 250 ms at most", first)
	}
	if len(later) != 1 || later[0] != 3*time.Millisecond {
		t.Errorf("later ones waited %v, want 3 ms", later)
	}
}

func TestAThawedRedisIsUsedWhenAnotherReplicaGetsAResult(t *testing.T) {
	thaw := after(3000)
	got := func(replica, began int, role coalesce.Role) outcome {
		return outcome{replica: replica, ran: execution{replica: 0, began: after(began)}, role: role}
	}
	outcomes := []outcome{
		got(1, 900, coalesce.RemoteFollower),  // before it froze
		got(0, 3050, coalesce.Leader),         // of its own replica
		got(1, 3200, coalesce.RemoteFollower), // the first
		got(2, 3300, coalesce.RemoteFollower),
	}
	if took := firstShared(outcomes, thaw); took != 200*time.Millisecond {
		t.Errorf("it took %v, want 200 ms", took)
	}
	if took := firstShared(outcomes[:2], thaw); took != time.Hour {
		t.Errorf("nothing is shared, and it took %v", took)
	}
}

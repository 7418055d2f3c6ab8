package coalescetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
)

type product struct {
	Name string
	Tags []string
	note string // does not travel
}

// answer is what a call ended in.
type answer struct {
	product product
	role    coalesce.Role
	err     error
}

// ask calls in a goroutine of its own.
func ask(g coalesce.Group[product], ctx context.Context, fn func(context.Context) (product, error)) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		p, role, err := g.Do(ctx, "7", fn)
		ch <- answer{p, role, err}
	}()
	return ch
}

func own(context.Context) (product, error) { return product{Name: "own"}, nil }

func (a answer) mustBe(t *testing.T, name string, role coalesce.Role, err error) {
	t.Helper()
	if a.product.Name != name || a.role != role || !errors.Is(a.err, err) {
		t.Errorf("the call got %q as %s, %v; want %q as %s, %v", a.product.Name, a.role, a.err, name, role, err)
	}
}

// inFleet runs test inside a bubble and outside, with two replicas.
func inFleet(t *testing.T, test func(t *testing.T, fleet *coalescetest.Fleet, a, b *coalescetest.Group[product])) {
	run := func(t *testing.T) {
		fleet := coalescetest.NewFleet()
		test(t, fleet, coalescetest.NewGroup[product](fleet, "products", coalescetest.AllowLossy()), coalescetest.NewGroup[product](fleet, "products", coalescetest.AllowLossy()))
	}
	t.Run("in a bubble", func(t *testing.T) { synctest.Test(t, run) })
	t.Run("in no bubble", run)
}

func TestOtherReplicasSeeADecodedCopy(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		other := a.LeadElsewhere("7")
		one, two := ask(a, t.Context(), own), ask(b, t.Context(), own)
		other.Await(2)
		other.Return(product{"Keyboard", []string{"new"}, "lost"}, nil)
		x, y := <-one, <-two
		x.mustBe(t, "Keyboard", coalesce.RemoteFollower, nil)
		y.mustBe(t, "Keyboard", coalesce.RemoteFollower, nil)
		if x.product.note != "" {
			t.Error("a field that JSON does not carry has travelled")
		}
		x.product.Tags[0] = "changed"
		if y.product.Tags[0] != "new" {
			t.Error("the replicas share a result's memory")
		}
	})
}

func TestOneOfTheFollowersTakesOverFromALeaderThatDies(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		other := b.LeadElsewhere("7")
		call := ask(a, t.Context(), own)
		other.Await(1)
		other.Die()
		(<-call).mustBe(t, "own", coalesce.Leader, nil)
		other.Return(product{Name: "too late"}, nil)
		(<-ask(b, t.Context(), own)).mustBe(t, "own", coalesce.Leader, nil)
	})
}

func TestLeaderThatAbandonsItsFlightIsFollowedByAnother(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, _ *coalescetest.Group[product]) {
		other := a.LeadElsewhere("7")
		call := ask(a, t.Context(), own)
		other.Await(1)
		other.Return(product{}, fmt.Errorf("query: %w", context.Canceled))
		(<-call).mustBe(t, "own", coalesce.Leader, nil)
	})
}

func TestKeyThatIsPoisonedWhileALeaderDiesHasNoNextOne(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		other := a.LeadElsewhere("7")
		call := ask(a, t.Context(), own)
		other.Await(1)
		b.Poison("7")
		other.Die()
		(<-call).mustBe(t, "", 0, coalesce.ErrPoisoned)
		if err := a.Forget(t.Context(), "7"); err != nil {
			t.Fatal(err)
		}
		(<-ask(b, t.Context(), own)).mustBe(t, "own", coalesce.Leader, nil)
	})
}

func TestCallersThatFollowFallBackWhenRedisStops(t *testing.T) {
	inFleet(t, func(t *testing.T, fleet *coalescetest.Fleet, a, _ *coalescetest.Group[product]) {
		closed := coalescetest.NewGroup[product](fleet, "products", coalescetest.FailClosed(), coalescetest.AllowLossy())
		other := a.LeadElsewhere("7")
		open, refused := ask(a, t.Context(), own), ask(closed, t.Context(), own)
		other.Await(2)
		if err := a.Forget(t.Context(), "7"); err != nil { // they wait for a forgotten flight
			t.Fatal(err)
		}
		fleet.StopRedis()
		(<-open).mustBe(t, "own", coalesce.Fallback, nil)
		(<-refused).mustBe(t, "", 0, coalesce.ErrUnavailable)
		(<-ask(a, t.Context(), own)).mustBe(t, "own", coalesce.Fallback, nil)
		if err := a.Forget(t.Context(), "7"); !errors.Is(err, coalesce.ErrUnavailable) {
			t.Errorf("Forget: %v", err)
		}
		fleet.StartRedis()
		(<-ask(a, t.Context(), own)).mustBe(t, "own", coalesce.Leader, nil)
	})
}

func TestFunctionThatRunsWhenRedisStopsGoesOnForItsOwnReplica(t *testing.T) {
	inFleet(t, func(t *testing.T, fleet *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		ctx, leave := context.WithCancel(t.Context())
		began, end := make(chan context.Context, 1), make(chan struct{})
		leader := ask(a, ctx, func(ctx context.Context) (product, error) {
			began <- ctx
			<-end
			return product{Name: "led"}, nil
		})
		flight := <-began
		fleet.StopRedis()
		(<-ask(b, t.Context(), own)).mustBe(t, "own", coalesce.Fallback, nil)
		if flight.Err() != nil {
			t.Error("the function was cancelled")
		}
		leave()
		(<-leader).mustBe(t, "", coalesce.Leader, context.Canceled)
		<-flight.Done() // its last caller has left
		close(end)
	})
}

func TestCachedResultIsReplacedAndForgotten(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		a.Cache("7", product{Name: "kept"})
		(<-ask(b, t.Context(), own)).mustBe(t, "kept", coalesce.Cached, nil)
		a.Cache("7", product{Name: "kept anew"})
		(<-ask(a, t.Context(), own)).mustBe(t, "kept anew", coalesce.Cached, nil)
		if err := b.Forget(t.Context(), "7"); err != nil {
			t.Fatal(err)
		}
		(<-ask(a, t.Context(), own)).mustBe(t, "own", coalesce.Leader, nil)
	})
}

func TestGroupsOfOtherNamesShareNothing(t *testing.T) {
	inFleet(t, func(t *testing.T, fleet *coalescetest.Fleet, a, _ *coalescetest.Group[product]) {
		users := coalescetest.NewGroup[product](fleet, "users", coalescetest.AllowLossy())
		a.Cache("7", product{Name: "kept"})
		a.LeadElsewhere("7")
		(<-ask(users, t.Context(), own)).mustBe(t, "own", coalesce.Leader, nil)
	})
}

func TestResultThatCannotTravelIsAFallbackElsewhere(t *testing.T) {
	fleet := coalescetest.NewFleet()
	a := coalescetest.NewGroup[chan int](fleet, "channels", coalescetest.AllowLossy())
	other := a.LeadElsewhere("key")
	role := make(chan coalesce.Role, 1)
	go func() {
		_, r, _ := a.Do(t.Context(), "key", func(context.Context) (chan int, error) { return nil, nil })
		role <- r
	}()
	other.Await(1)
	other.Return(make(chan int), nil)
	if got := <-role; got != coalesce.Fallback {
		t.Errorf("the role is %s", got)
	}
}

func TestResultOfAnotherTypeIsAFallback(t *testing.T) {
	fleet := coalescetest.NewFleet()
	numbers := coalescetest.NewGroup[struct{ Name int }](fleet, "products")
	products := coalescetest.NewGroup[product](fleet, "products", coalescetest.AllowLossy())
	numbers.Cache("7", struct{ Name int }{7})
	(<-ask(products, t.Context(), own)).mustBe(t, "own", coalesce.Fallback, nil)
}

func TestErrorWhoseMethodsPanicIsToldElsewhereWithoutThem(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, _ *coalescetest.Group[product]) {
		other := a.LeadElsewhere("7")
		call := ask(a, t.Context(), own)
		other.Await(1)
		var broken *brokenError
		other.Return(product{}, broken)
		if got := <-call; got.role != coalesce.RemoteFollower || got.err == nil || !strings.Contains(got.err.Error(), "an error that panics") {
			t.Errorf("the call ended as %s, %v", got.role, got.err)
		}
	})
}

type brokenError struct{ message string }

func (e *brokenError) Error() string { return e.message }

func TestMistakesOfATestAreNamed(t *testing.T) {
	for want, mistake := range map[string]func(*coalescetest.Fleet, *coalescetest.Group[chan int]){
		`key "7" of group "channels" is led already`: func(_ *coalescetest.Fleet, g *coalescetest.Group[chan int]) {
			g.LeadElsewhere("7")
			g.LeadElsewhere("7")
		},
		"the value cannot be encoded": func(_ *coalescetest.Fleet, g *coalescetest.Group[chan int]) {
			g.Cache("7", make(chan int))
		},
		"call StartRedis first": func(fleet *coalescetest.Fleet, g *coalescetest.Group[chan int]) {
			fleet.StopRedis()
			g.LeadElsewhere("7")
		},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("it panicked with %q, want %q", got, want)
				}
			}()
			fleet := coalescetest.NewFleet()
			mistake(fleet, coalescetest.NewGroup[chan int](fleet, "channels", coalescetest.AllowLossy()))
		}()
	}
}

func TestAwaitReturnsWhenTheFlightHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := coalescetest.NewGroup[product](coalescetest.NewFleet(), "products", coalescetest.AllowLossy())
		other := g.LeadElsewhere("7")
		returned := make(chan struct{})
		go func() {
			other.Await(1)
			close(returned)
		}()
		synctest.Wait()
		select {
		case <-returned:
			t.Error("Await has returned though nobody follows")
		default:
		}
		other.Die()
		<-returned
	})
}

func TestNewGroupPanicsWhereTheRealOneReturnsAnError(t *testing.T) {
	type account struct{ balance int }
	_ = account{balance: 1}
	fleet := coalescetest.NewFleet()
	for want, mistake := range map[string]func(){
		"Fleet is nil":     func() { coalescetest.NewGroup[int](nil, "n") },
		"0 bytes":          func() { coalescetest.NewGroup[int](fleet, "") },
		"101 bytes":        func() { coalescetest.NewGroup[int](fleet, strings.Repeat("n", 101)) },
		"option 1 is nil":  func() { coalescetest.NewGroup[int](fleet, "n", nil) },
		"balance as it is": func() { coalescetest.NewGroup[account](fleet, "accounts") },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("it panicked with %q, want %q", got, want)
				}
			}()
			mistake()
		}()
	}
}

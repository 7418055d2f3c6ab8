package rollcall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
	"github.com/fleetcall/fleetcall/internal/rollcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// calm is a time that no stall of a busy machine reaches.
const calm = time.Minute

// join starts a replica that answers questions with its name.
func join(t *testing.T, client redis.UniversalClient, name string, observe func(error)) *rollcall.Member {
	t.Helper()
	return joinWithin(t, calm, client, name, observe)
}

// joinWithin is join with another timeout of a Redis command.
func joinWithin(t *testing.T, timeout time.Duration, client redis.UniversalClient, name string, observe func(error)) *rollcall.Member {
	t.Helper()
	c := rollcall.New(rollcall.Config{Client: client, Namespace: "test", Timeout: timeout, Observe: observe})
	c.Start(func(_ context.Context, question string) ([]byte, error) {
		switch {
		case question == "unknown" && name != "a":
			return nil, errors.New("unknown question")
		case strings.HasPrefix(question, "not for ") && strings.Contains(question, name):
			return nil, nil
		}
		return json.Marshal(name + " " + question)
	})
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func ready(t *testing.T, members ...*rollcall.Member) {
	t.Helper()
	for _, c := range members {
		select {
		case <-c.Ready():
		case <-time.After(calm):
			t.Fatal("no subscription within a minute")
		}
	}
}

// ask asks, and waits for the answers as long as a busy machine may need.
func ask(t *testing.T, c *rollcall.Member, question string) (answers []string, missing int, err error) {
	t.Helper()
	return askFor(t, c, question, 0)
}

func askFor(t *testing.T, c *rollcall.Member, question string, expected int) (answers []string, missing int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), calm)
	defer cancel()
	return askUnder(ctx, t, c, question, expected)
}

// askUnder asks under a context. If it has no deadline, the answers have a second.
func askUnder(ctx context.Context, t *testing.T, c *rollcall.Member, question string, expected int) (answers []string, missing int, err error) {
	t.Helper()
	raw, missing, err := c.Ask(ctx, question, expected)
	for _, r := range raw {
		var answer string
		if err := json.Unmarshal(r, &answer); err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		answers = append(answers, answer)
	}
	slices.Sort(answers)
	return answers, missing, err
}

func expect(t *testing.T, c *rollcall.Member, want ...string) {
	t.Helper()
	answers, missing, err := ask(t, c, "x")
	if err != nil || missing != 0 || !slices.Equal(answers, want) {
		t.Errorf("got %q, %d missing, %v; want %q", answers, missing, err, want)
	}
}

func client(t *testing.T, server *redisrig.Server) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: calm, ReadTimeout: calm, WriteTimeout: calm, PoolTimeout: calm})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestEveryReplicaAnswersEveryOther(t *testing.T) {
	server := redisrig.Start(t)
	a, b, c := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil), join(t, client(t, server), "c", nil)
	ready(t, a, b, c)
	start := time.Now()
	for _, asker := range []*rollcall.Member{a, b, c} {
		expect(t, asker, "a x", "b x", "c x")
	}
	if took := time.Since(start); took > calm/2 {
		t.Errorf("three questions took %v: an asker that has every answer must not wait for its limit", took)
	}
	if keys := client(t, server).DBSize(t.Context()).Val(); keys != 0 {
		t.Errorf("%d keys are left in Redis", keys)
	}
}

func TestAQuestionMayTakeAsLongAsItsContextSaysAndIsAnsweredByAllAtOnce(t *testing.T) {
	server := redisrig.Start(t)
	var answering sync.WaitGroup
	answering.Add(2)
	// Each waits until both have been asked, and then for longer than a question
	// without a deadline may take.
	together := func(context.Context, string) ([]byte, error) {
		answering.Done()
		answering.Wait()
		time.Sleep(1200 * time.Millisecond)
		return []byte(`"done"`), nil
	}
	var members []*rollcall.Member
	for range 2 {
		c := rollcall.New(rollcall.Config{Client: client(t, server), Namespace: "test", Timeout: calm})
		c.Start(together)
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		members = append(members, c)
	}
	ready(t, members...)
	ctx, cancel := context.WithTimeout(t.Context(), calm)
	defer cancel()
	answers, missing, err := members[0].Ask(ctx, "x", 0)
	if err != nil || missing != 0 || len(answers) != 2 {
		t.Errorf("%q, %d missing, %v", answers, missing, err)
	}
}

func TestAskersOwnErrorIsTheAnswer(t *testing.T) {
	c := rollcall.New(rollcall.Config{Client: client(t, redisrig.Start(t)), Namespace: "test", Timeout: calm})
	own := errors.New("cannot be answered")
	c.Start(func(context.Context, string) ([]byte, error) { return nil, own })
	defer func() { _ = c.Close(context.Background()) }()
	ready(t, c)
	if answers, missing, err := c.Ask(t.Context(), "x", 0); len(answers) != 0 || missing != 0 || !errors.Is(err, own) {
		t.Errorf("%q, %d missing, %v", answers, missing, err)
	}
}

func TestFleetsOnTwoDatabasesOfOneServerDoNotHearEachOther(t *testing.T) {
	server := redisrig.Start(t)
	other := redis.NewClient(&redis.Options{Addr: server.Addr, DB: 1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = other.Close() })
	a, b, staging := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil), join(t, other, "staging", nil)
	ready(t, a, b, staging)
	expect(t, a, "a x", "b x")
	expect(t, staging, "staging x")
}

func TestQuestionsAtOnceDoNotMix(t *testing.T) {
	server := redisrig.Start(t)
	a, b := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil)
	ready(t, a, b)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			question := fmt.Sprint(i)
			answers, missing, err := ask(t, a, question)
			if want := []string{"a " + question, "b " + question}; err != nil || missing != 0 || !slices.Equal(answers, want) {
				t.Errorf("got %q, %d missing, %v", answers, missing, err)
			}
		})
	}
	all.Wait()
}

func TestReplicaThatLeftIsNotCounted(t *testing.T) {
	server := redisrig.Start(t)
	a, b := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil)
	ready(t, a, b)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The server notices a closed connection later than its client.
	for n := int64(2); n != 1; {
		n = client(t, server).PubSubNumSub(t.Context(), "test:census@0").Val()["test:census@0"]
	}
	expect(t, a, "a x")
}

func TestStoppedReplicaIsReportedMissingAfterASecond(t *testing.T) {
	server := redisrig.Start(t)
	a := join(t, client(t, server), "a", nil)
	ready(t, a)
	stopped(t, server)
	start := time.Now()
	answers, missing, err := askUnder(t.Context(), t, a, "x", 0)
	if err != nil || missing != 1 || !slices.Equal(answers, []string{"a x"}) {
		t.Errorf("got %q, %d missing, %v", answers, missing, err)
	}
	if took := time.Since(start); took > calm/2 {
		t.Errorf("it took %v", took)
	}
}

func TestAClientThatWatchesTheChannelsIsNoReplica(t *testing.T) {
	server := redisrig.Start(t)
	a, b := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil)
	ready(t, a, b)
	expectNobodyElse(t, server, a)
}

// expectNobodyElse lets an operator watch all channels, and expects the answers of a
// and b without a wait for a third.
func expectNobodyElse(t *testing.T, server *redisrig.Server, a *rollcall.Member) {
	t.Helper()
	watching := client(t, server).PSubscribe(t.Context(), "test:*")
	defer func() { _ = watching.Close() }()
	if _, err := watching.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	expect(t, a, "a x", "b x")
	if took := time.Since(start); took > calm/2 {
		t.Errorf("it took %v", took)
	}
	if _, err := watching.ReceiveMessage(t.Context()); err != nil { // the operator has seen the question
		t.Fatal(err)
	}
}

// stopped adds a subscriber that Redis counts and that never answers, as a stopped
// process would be.
func stopped(t *testing.T, server *redisrig.Server) {
	t.Helper()
	deaf := client(t, server).Subscribe(t.Context(), "test:census@0")
	t.Cleanup(func() { _ = deaf.Close() })
	if _, err := deaf.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAReplicaThatIsNotExpectedIsNotWaitedFor(t *testing.T) {
	server := redisrig.Start(t)
	a, b, c := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil), join(t, client(t, server), "c", nil)
	ready(t, a, b, c)
	stopped(t, server)
	for range 20 { // c receives the question too, and the asker must not count it instead of b
		start := time.Now()
		answers, missing, err := askFor(t, a, "not for c", 2)
		if want := []string{"a not for c", "b not for c"}; err != nil || missing != 0 || !slices.Equal(answers, want) {
			t.Errorf("got %q, %d missing, %v; want %q", answers, missing, err, want)
		}
		if took := time.Since(start); took > calm/2 {
			t.Errorf("it took %v", took)
		}
	}
	if answers, missing, err := askFor(t, a, "not for b, c", 1); err != nil || missing != 0 || !slices.Equal(answers, []string{"a not for b, c"}) {
		t.Errorf("alone: got %q, %d missing, %v", answers, missing, err)
	}
}

func TestReplicaThatCannotAnswerIsMissingAtOnce(t *testing.T) {
	server := redisrig.Start(t)
	a, b := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil)
	ready(t, a, b)
	start := time.Now()
	answers, missing, err := ask(t, a, "unknown")
	if err != nil || missing != 1 || !slices.Equal(answers, []string{"a unknown"}) {
		t.Errorf("got %q, %d missing, %v", answers, missing, err)
	}
	if took := time.Since(start); took > calm/2 {
		t.Errorf("it took %v", took)
	}
}

func TestGarbageOnTheChannelIsIgnored(t *testing.T) {
	server := redisrig.Start(t)
	a, b := join(t, client(t, server), "a", nil), join(t, client(t, server), "b", nil)
	ready(t, a, b)
	for _, garbage := range []string{"", "{", "[]", `{"id":7}`, "\x00\xff"} {
		if err := client(t, server).Publish(t.Context(), "test:census@0", garbage).Err(); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, a, "a x", "b x")
}

func TestWithoutRedisThereIsOneAnswerAndItComesBackWithRedis(t *testing.T) {
	server := redisrig.Start(t)
	server.Stop()
	changes := make(chan error, 1000)
	observe := func(err error) {
		select {
		case changes <- err:
		default:
		}
	}
	until := func(connected bool) {
		t.Helper()
		limit := time.After(calm)
		for {
			select {
			case err := <-changes:
				if (err == nil) == connected {
					return
				}
			case <-limit:
				t.Fatalf("never observed connected = %v", connected)
			}
		}
	}
	alone := func(c *rollcall.Member) {
		t.Helper()
		answers, _, err := ask(t, c, "x")
		if err == nil || !slices.Equal(answers, []string{"a x"}) {
			t.Errorf("got %q, %v", answers, err)
		}
	}
	a := join(t, client(t, server), "a", observe)
	until(false)
	alone(a)

	server.Restart()
	b := join(t, client(t, server), "b", nil)
	ready(t, a, b)
	until(true)
	expect(t, a, "a x", "b x")

	server.Kill()
	until(false)
	alone(a)
	server.Restart()
	until(true)
	for client(t, server).PubSubNumSub(t.Context(), "test:census@0").Val()["test:census@0"] != 2 {
		time.Sleep(10 * time.Millisecond) // no event announces it
	}
	expect(t, a, "a x", "b x")
}

func TestFrozenRedisAnswersWithinItsTimeout(t *testing.T) {
	server := redisrig.Start(t)
	a := joinWithin(t, time.Second, client(t, server), "a", nil)
	ready(t, a)
	server.Freeze()
	defer server.Thaw()
	start := time.Now()
	answers, _, err := ask(t, a, "x")
	if err == nil || !slices.Equal(answers, []string{"a x"}) {
		t.Errorf("got %q, %v", answers, err)
	}
	if took := time.Since(start); took > calm/2 {
		t.Errorf("it took %v", took)
	}
}

func TestClusterCountsTheReplicasOfEveryNode(t *testing.T) {
	server := redisrig.Start(t, "--cluster-enabled", "yes")
	admin := client(t, server)
	if err := admin.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(calm); ; time.Sleep(10 * time.Millisecond) {
		info, err := admin.ClusterInfo(t.Context()).Result()
		if err == nil && len(info) >= 16 && info[:16] == "cluster_state:ok" {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the cluster is not up: %q, %v", info, err)
		}
	}
	cluster := func() *redis.ClusterClient {
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr}, ContextTimeoutEnabled: true,
			DialTimeout: calm, ReadTimeout: calm, WriteTimeout: calm, PoolTimeout: calm})
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	a, b := join(t, cluster(), "a", nil), join(t, cluster(), "b", nil)
	ready(t, a, b)
	expect(t, a, "a x", "b x")
	expect(t, b, "a x", "b x")
	expectNobodyElse(t, server, a)
}

package redislink

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

const (
	// maxCombined is how many keys one script takes at most: while it runs, Redis does
	// nothing else, and this many take it about a millisecond.
	maxCombined = 128
	// maxCombinedBytes is how many bytes of outcomes one script takes at most. A script
	// copies them several times.
	maxCombinedBytes = 64 << 10
)

// SendTogether is Send for any number of requests. Those of one server leave in one round
// trip if they are no more than maxBatch, and none of them is large.
func (l *Link) SendTogether(requests []*Request) {
	now := time.Now()
	if l.only != nil {
		l.only.admitAll(requests, now)
		return
	}
	var servers []*server // in the order of the requests
	of := map[*server][]*Request{}
	for _, r := range requests {
		s := l.serverOf(r.command.Key())
		if of[s] == nil {
			servers = append(servers, s)
		}
		of[s] = append(of[s], r)
	}
	for _, s := range servers {
		s.admitAll(of[s], now)
	}
}

// admitAll sends requests that are large at once, and has the others wait their turn.
func (s *server) admitAll(requests []*Request, asked time.Time) {
	var large []*batch
	s.mu.Lock()
	up := s.why == nil
	for _, r := range requests {
		r.asked = asked
		switch {
		case !up:
		case r.large():
			large = append(large, s.alone(r))
		default:
			s.queue = append(s.queue, r)
		}
	}
	if s.link.cluster != nil && len(requests) > 0 {
		s.key, s.asked = requests[0].command.Key(), true
	}
	s.wake()
	s.mu.Unlock()
	for _, b := range large {
		go s.run(b)
	}
	if !up {
		for _, r := range requests {
			r.answer(nil, ErrServerDown)
		}
	}
}

// turn is a step's place in a batch. What keeps a flight, or ends it, goes before what asks
// for its key: a join that went first would follow a flight that is about to end. A renewal
// that came after its flight's finish would find that lost.
func turn(step string) int {
	switch step {
	case "renew":
		return 0
	case "finish", "abandon", "leave", "forget":
		return 1
	}
	return 2
}

// piece is one command of a batch: that of a single request, or one that does what
// several requests ask for.
type piece struct {
	requests []*Request
	bytes    int
	command  protocol.Command
	cmd      redis.Cmder
}

// pieces returns what to send for the requests of a batch, in the order of their turns.
// Requests of one step become one command, unless the server is a Cluster's, where each
// caller's key has another slot.
func (s *server) pieces(requests []*Request) (all []*piece) {
	if s.link.cluster != nil || s.apart.Load() {
		return single(requests)
	}
	sorted := slices.Clone(requests)
	slices.SortStableFunc(sorted, func(a, b *Request) int { return turn(a.command.Step()) - turn(b.command.Step()) })
	open := map[protocol.Shape]*piece{}
	for _, r := range sorted {
		shape, size := r.command.Shape(), r.command.Bytes()
		p := open[shape]
		if p == nil || shape == (protocol.Shape{}) || len(p.requests) == maxCombined || p.bytes+size > maxCombinedBytes {
			p = new(piece)
			all = append(all, p)
			open[shape] = p
		}
		p.requests, p.bytes = append(p.requests, r), p.bytes+size
	}
	for _, p := range all {
		p.combine()
	}
	return all
}

func single(requests []*Request) []*piece {
	all := make([]*piece, len(requests))
	for i := range requests {
		all[i] = &piece{requests: requests[i : i+1], command: requests[i].command}
	}
	return all
}

func (p *piece) combine() {
	p.command = p.requests[0].command
	if len(p.requests) > 1 {
		commands := make([]protocol.Command, len(p.requests))
		for i, r := range p.requests {
			commands[i] = r.command
		}
		p.command = protocol.Together(commands)
	}
}

// answer is what a request has when the client has come back.
type answer struct {
	request *Request
	reply   any
	err     error
}

// send sends the pieces in one round trip, and returns an answer for each request. Where a
// command of many keys was refused, perhaps because of one of them, each request is sent
// again by itself.
func (s *server) send(ctx context.Context, pieces []*piece) (answers []answer) {
	failed := process(func() {
		pipe := s.link.client.Pipeline()
		for _, p := range pieces {
			p.cmd = p.command.Cmd(ctx)
			_ = pipe.Process(ctx, p.cmd)
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
	})
	if failed == nil {
		s.loadTogether(ctx, pieces)
	}
	for _, p := range pieces {
		reply, err := any(nil), failed
		if err == nil {
			reply, err = s.loaded(ctx, p.command, p.cmd)
		}
		switch n := len(p.requests); {
		case n == 1:
			answers = append(answers, answer{p.requests[0], reply, err})
		case err == nil:
			replies, errs := protocol.Replies(reply, n)
			for i, r := range p.requests {
				answers = append(answers, answer{r, replies[i], errs[i]})
			}
		case s.mayBeOnes(err):
			s.heard.Add(1)
			answers = append(answers, s.send(ctx, single(p.requests))...)
		default:
			for _, r := range p.requests {
				answers = append(answers, answer{r, nil, err})
			}
		}
	}
	return answers
}

// loadTogether sends those pieces again whose script Redis does not have, in one round
// trip: the first of each script with its source, which loads it for the others.
func (s *server) loadTogether(ctx context.Context, pieces []*piece) {
	var again []*piece
	first := map[any]*piece{} // by the SHA of the script
	for _, p := range pieces {
		if lacksScript(p.cmd.Err()) {
			again = append(again, p)
			if sha := p.cmd.Args()[1]; first[sha] == nil {
				first[sha] = p
			}
		}
	}
	if len(again) < 2 {
		return // loaded does it
	}
	s.heard.Add(1)
	_ = process(func() {
		pipe := s.link.client.Pipeline()
		for _, p := range again {
			sha := p.cmd.Args()[1]
			if p.cmd = p.command.Cmd(ctx); first[sha] == p {
				p.cmd = p.command.CmdWithSource(ctx)
			}
			_ = pipe.Process(ctx, p.cmd)
		}
		_, _ = pipe.Exec(ctx)
	})
}

// mayBeOnes says whether the server refused a command of many keys with err because of one
// of them, which this client may not use, or because it takes none whose keys are in
// several slots.
func (s *server) mayBeOnes(err error) bool {
	if redis.HasErrorPrefix(err, "CROSSSLOT") {
		s.apart.Store(true) // for good
		return true
	}
	answered, sign := signOf(err)
	return answered && sign != refusal
}

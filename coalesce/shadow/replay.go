package shadow

import (
	"cmp"
	"slices"
	"time"
)

// replay finds out which calls would have led flights if the whole fleet were coalesced,
// from what happened to the keys that all replicas follow.
type replay struct {
	keys    map[uint64]*flight
	leading map[callID]struct{} // calls of this replica that lead and have not ended
	hold    int64               // how long a flight can be joined after its function has ended, in µs
	since   int64               // what happened before is not known, in µs since 1970
}

// callID names a call of this replica.
type callID struct {
	key    uint64
	number uint32
}

// flight is a key with calls under way somewhere, or one that was under way a moment ago.
type flight struct {
	replica uint64
	leader  uint32 // the number of the replica's call that leads; 0: none, or anyCall
	active  int
	open    int64 // until when a flight can be joined whose function has ended
}

func newReplay(maxAge time.Duration) replay {
	return replay{keys: map[uint64]*flight{}, leading: map[callID]struct{}{}, hold: maxAge.Microseconds()}
}

// happened is an event of a replica. Those of this one have what is not sent, too.
type happened struct {
	reported
	replica uint64
	own     *event
}

// inOrder sorts the events of all replicas by time, in the same way on each of them. What a
// replica reports of one moment stays in the order in which it happened there: a function
// may take less than 1 µs.
func inOrder(all []happened) {
	slices.SortStableFunc(all, func(a, b happened) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.replica, b.replica))
	})
}

// forget drops what is known: what happened before since is not.
func (r *replay) forget(since int64) {
	clear(r.keys)
	clear(r.leading)
	r.since = since
}

// next takes the next event. For the end of a call of this replica it returns whether the
// call led, and whether that is known.
func (r *replay) next(e happened) (led, known bool) {
	f := r.keys[e.key]
	if f == nil {
		f = &flight{}
		r.keys[e.key] = f
	}
	id := callID{e.key, e.number}
	switch e.kind {
	case began:
		f.active++
		if f.leader == 0 && e.at >= f.open {
			f.replica, f.leader = e.replica, e.number
			if e.own != nil {
				r.leading[id] = struct{}{}
			}
		}
	case ended, left:
		f.active = max(f.active-1, 0)
		leads := f.leader == e.number && f.replica == e.replica
		switch {
		case !leads && (f.leader != anyCall || e.kind == left):
		case e.kind == left && f.active > 0:
			f.leader = anyCall
		default:
			f.leader = 0
			f.open = e.at + r.hold
		}
		if e.own != nil {
			_, led = r.leading[id]
			delete(r.leading, id)
			known = e.at-e.own.took.Microseconds() >= r.since
		}
	case forgot:
		f.leader, f.open = 0, 0
	}
	return led, known
}

// sweep drops the keys of which nothing is under way.
func (r *replay) sweep(now int64) {
	for key, f := range r.keys {
		if f.active == 0 && f.leader == 0 && f.open <= now {
			delete(r.keys, key)
		}
	}
}

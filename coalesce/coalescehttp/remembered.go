package coalescehttp

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// rememberedEntries is how many keys a Transport or a Middleware remembers something of.
// A key has at most 200 bytes and a Vary at most 1 KiB: with a usual Vary, this many take
// about 2 MiB.
const rememberedEntries = 4096

// remembered is what the answers of a short while ago have told: which fields Vary names,
// which is a part of the next request's key, and which keys' answers are not shared, so
// that nobody waits for one in vain. It is bounded: the key that was least recently used is
// forgotten first. Forgetting costs one flight that learns it anew.
type remembered struct {
	entries int

	mu     sync.Mutex
	keys   map[string]*list.Element // of *memory
	recent *list.List               // the most recently used first
}

// memory is what is remembered of one key.
type memory struct {
	key    string
	vary   []string // never changed, only replaced
	reason Reason
	until  time.Time
}

func newRemembered(entries int) *remembered {
	return &remembered{entries: entries, keys: map[string]*list.Element{}, recent: list.New()}
}

// vary returns the fields that answers for a base key have named in Vary. They must not be
// changed.
func (re *remembered) vary(base string) []string {
	re.mu.Lock()
	defer re.mu.Unlock()
	if m := re.find(base); m != nil {
		return m.vary
	}
	return nil
}

// learn adds to the fields that answers for a base key have named. The answers of one
// resource may name different ones, and all decide.
func (re *remembered) learn(base string, vary []string) {
	if len(vary) == 0 {
		return
	}
	re.mu.Lock()
	defer re.mu.Unlock()
	m := re.make(base)
	all := slices.Concat(m.vary, vary)
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > maxVary {
		all = slices.Clone(vary)
	}
	m.vary = all
}

// alone returns why the answers for a key were not shared, if that is remembered.
func (re *remembered) alone(key string) Reason {
	re.mu.Lock()
	defer re.mu.Unlock()
	m := re.find(key)
	if m == nil || m.reason == "" || !time.Now().Before(m.until) {
		return ""
	}
	return m.reason
}

// leaveAlone remembers for a while that the answers for a key are not shared.
func (re *remembered) leaveAlone(key string, reason Reason, while time.Duration) {
	if while <= 0 || !reason.lasting() {
		return
	}
	re.mu.Lock()
	defer re.mu.Unlock()
	m := re.make(key)
	m.reason, m.until = reason, time.Now().Add(while)
}

// clear forgets that the answers for a key are not shared: one was found that may be.
func (re *remembered) clear(key string) {
	re.mu.Lock()
	defer re.mu.Unlock()
	if m := re.find(key); m != nil {
		m.reason = ""
	}
}

func (re *remembered) find(key string) *memory {
	e := re.keys[key]
	if e == nil {
		return nil
	}
	re.recent.MoveToFront(e)
	return e.Value.(*memory)
}

func (re *remembered) make(key string) *memory {
	if m := re.find(key); m != nil {
		return m
	}
	for len(re.keys) >= re.entries {
		last := re.recent.Back()
		delete(re.keys, re.recent.Remove(last).(*memory).key)
	}
	m := &memory{key: key}
	re.keys[key] = re.recent.PushFront(m)
	return m
}

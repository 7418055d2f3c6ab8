package local

const (
	// mostChained is how many flights are kept in one chain before there are
	// buckets.
	mostChained = 4
	// mostKept is how many buckets an empty table may keep.
	mostKept = 256
)

// table has the flights of one shard that can be joined, in chains by the hash
// of their keys. A flight is its own entry: unlike in a map, it is hashed once,
// and comes and goes without memory for it. Most tables have one flight or
// none, and touch no other memory than their shard's.
type table[K comparable, V any] struct {
	only    *flight[K, V]    // the one chain while there are no buckets
	buckets *[]*flight[K, V] // nil, or a power of two
	count   int32
}

// chain uses the bits of the hash that have not chosen the shard.
func (t *table[K, V]) chain(hash uint64) **flight[K, V] {
	if t.buckets == nil {
		return &t.only
	}
	buckets := *t.buckets
	return &buckets[hash/shardCount&uint64(len(buckets)-1)]
}

// find returns nil when there is no such flight.
func (t *table[K, V]) find(key K, hash uint64) *flight[K, V] {
	for f := *t.chain(hash); f != nil; f = f.next {
		if f.hash == hash && f.key == key {
			return f
		}
	}
	return nil
}

func (t *table[K, V]) insert(f *flight[K, V]) {
	switch {
	case t.buckets == nil && t.count == mostChained:
		t.rehash(2 * mostChained)
	case t.buckets != nil && int(t.count) == len(*t.buckets):
		t.rehash(2 * len(*t.buckets))
	}
	t.count++
	at := t.chain(f.hash)
	f.next, *at = *at, f
}

// rehash makes n buckets of all chains.
func (t *table[K, V]) rehash(n int) {
	chains := []*flight[K, V]{t.only}
	if t.buckets != nil {
		chains = *t.buckets
	}
	buckets := make([]*flight[K, V], n)
	t.only, t.buckets = nil, &buckets
	for _, f := range chains {
		for f != nil {
			next, at := f.next, t.chain(f.hash)
			f.next, *at = *at, f
			f = next
		}
	}
}

// remove takes f out, if it is still in: Forget may have been first, and
// another flight may have its place.
func (t *table[K, V]) remove(f *flight[K, V]) {
	for at := t.chain(f.hash); *at != nil; at = &(*at).next {
		if *at == f {
			*at, f.next = f.next, nil
			t.count--
			if t.count == 0 && t.buckets != nil && len(*t.buckets) > mostKept {
				t.buckets = nil
			}
			return
		}
	}
}

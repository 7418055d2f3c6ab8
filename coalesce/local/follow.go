package local

// follow is a batch's part in a flight that it does not run the function of. With told,
// it is somebody else's who wants to know that the flight has ended, and has no batch.
type follow[K comparable, V any] struct {
	b          *batch[K, V]
	told       func()
	s          *shard[K, V]
	f          *flight[K, V]
	prev, next *follow[K, V] // of the same flight; guarded by the shard's mu until the flight has ended
	anew       bool          // the batch joins another flight instead
}

// follow makes b a follower of f, whose shard's mu is held.
func (b *batch[K, V]) follow(s *shard[K, V], f *flight[K, V], fo *follow[K, V]) {
	s.followers++
	f.waiters++
	f.followed = true
	f.follow(fo)
	b.follows = append(b.follows, fo)
	b.mu.Lock()
	b.pending++
	if b.news == nil {
		b.news = make(chan struct{}, 1)
	}
	b.mu.Unlock()
}

func (f *flight[K, V]) follow(fo *follow[K, V]) {
	if fo.next = f.batches; fo.next != nil {
		fo.next.prev = fo
	}
	f.batches = fo
}

// unfollow takes fo out of its flight, which has not ended, and whose shard's mu is held.
func (fo *follow[K, V]) unfollow() {
	if fo.prev == nil {
		fo.f.batches = fo.next
	} else {
		fo.prev.next = fo.next
	}
	if fo.next != nil {
		fo.next.prev = fo.prev
	}
}

// tellAll tells the batches of fo and of those after it that their flight has ended.
func (fo *follow[K, V]) tellAll() {
	for fo != nil {
		next := fo.next
		if fo.told != nil {
			fo.told()
		} else {
			fo.tell()
		}
		fo = next
	}
}

// tell tells the batch that the flight of fo has ended.
func (fo *follow[K, V]) tell() {
	b := fo.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending--
	if fo.f.abandoned {
		b.abandoned = append(b.abandoned, fo)
	}
	if b.pending == 0 || fo.f.abandoned {
		b.tellLocked()
	}
}

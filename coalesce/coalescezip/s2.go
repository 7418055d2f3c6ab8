package coalescezip

import (
	"github.com/klauspost/compress/s2"

	"github.com/fleetcall/fleetcall/coalesce"
)

// S2 returns a codec that compresses what inner makes of results by S2, a faster
// relative of Snappy. Its name is "s2+" and inner's.
func S2[V any](inner coalesce.Codec[V], opts ...Option) coalesce.Codec[V] {
	return wrap("s2", s2Blocks{}, apply(opts), inner)
}

type s2Blocks struct{}

func (s2Blocks) compress(dst, src []byte) []byte {
	room := s2.MaxEncodedLen(len(src))
	if room < 0 {
		return append(dst, src...) // over 4 GiB: the result is longer, and not used
	}
	b := make([]byte, len(dst)+room)
	n := copy(b, dst)
	return b[:n+len(s2.Encode(b[n:], src))]
}

func (s2Blocks) decompress(src []byte, limit int) ([]byte, error) {
	// The length stands before the rest, and is believed only up to the limit.
	length, err := s2.DecodedLen(src)
	if err != nil {
		return nil, err
	}
	if length > limit {
		return nil, ErrTooLarge
	}
	return s2.Decode(nil, src)
}

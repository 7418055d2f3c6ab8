// Package coalescezip compresses results on their way between replicas: it wraps
// another codec.
//
//	codec := coalescezip.Zstd(coalesce.JSON[Product]())
//	products, err := distributed.NewGroup[Product](fleet, "products", distributed.WithCodec(codec))
//
// Zstd makes results smallest. S2 is several times faster and makes them less
// small. Both are worth it for results of some kilobytes and more, where Redis and
// the network are slower than a processor.
//
// The wrapped codec's name is a part of the codec's: a replica without compression
// does not read what one with it has sent, and runs its own function.
package coalescezip

import (
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// ErrTooLarge is returned for a result that has more bytes uncompressed than the
// limit: by Marshal, and by Unmarshal, which so survives a few bytes that claim to
// be gigabytes.
var ErrTooLarge = errors.New("fleetcall: the result is larger uncompressed than the limit")

// Option is a setting of a codec.
type Option func(*settings)

type settings struct{ limit, threshold, level int }

// WithLimit sets how many bytes a result may have uncompressed. The default is 64
// MiB. All replicas need the same: one with a lower limit cannot read what is over
// it, and runs its own function.
func WithLimit(bytes int) Option {
	if bytes <= 0 {
		panic("fleetcall: coalescezip.WithLimit needs a number of bytes above 0")
	}
	return func(s *settings) { s.limit = bytes }
}

// WithThreshold sets from how many bytes on a result is compressed. The default is
// 256: smaller ones do not get much smaller, and are sent as they are.
func WithThreshold(bytes int) Option {
	return func(s *settings) { s.threshold = bytes }
}

// WithLevel sets how hard Zstd tries: 1 (fast) to 22 (small), as the zstd program
// counts. The default is 3. The library has four levels, and takes the nearest. S2
// ignores it.
func WithLevel(level int) Option {
	if level < 1 || level > 22 {
		panic("fleetcall: coalescezip.WithLevel needs a level from 1 to 22")
	}
	return func(s *settings) { s.level = level }
}

// algorithm compresses and decompresses, on many goroutines at once.
type algorithm interface {
	compress(dst, src []byte) []byte
	decompress(src []byte, limit int) ([]byte, error)
}

// wrap returns a codec named "NAME+INNER" that checks as inner does, and has
// inner's fingerprint if inner has one of its own.
func wrap[V any](name string, a algorithm, s settings, inner coalesce.Codec[V]) coalesce.Codec[V] {
	if inner == nil {
		panic("fleetcall: coalescezip needs a codec to wrap, such as coalesce.JSON")
	}
	c := codec[V]{name: name + "+" + inner.Name(), algorithm: a, settings: s, inner: inner}
	if f, ok := inner.(coalesce.Fingerprinter); ok {
		return fingerprinted[V]{c, f}
	}
	return c
}

func apply(opts []Option) settings {
	s := settings{limit: 64 << 20, threshold: 256, level: 3}
	for _, opt := range opts {
		opt(&s)
	}
	return s
}

type codec[V any] struct {
	name      string
	algorithm algorithm
	settings  settings
	inner     coalesce.Codec[V]
}

type fingerprinted[V any] struct {
	codec[V]
	coalesce.Fingerprinter
}

// The first byte says how the rest is to be read.
const (
	stored     = 0
	compressed = 1
)

func (c codec[V]) Name() string { return c.name }

// Check makes codec a coalesce.Checker.
func (c codec[V]) Check() error {
	if checker, ok := c.inner.(coalesce.Checker); ok {
		return checker.Check()
	}
	return nil
}

func (c codec[V]) Marshal(v V) ([]byte, error) {
	data, err := c.inner.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(data) > c.settings.limit {
		return nil, fmt.Errorf("%w: it has %d bytes, and the limit is %d", ErrTooLarge, len(data), c.settings.limit)
	}
	if len(data) >= c.settings.threshold {
		smaller := c.algorithm.compress([]byte{compressed}, data)
		if len(smaller) <= len(data) {
			return smaller, nil
		}
	}
	return append([]byte{stored}, data...), nil
}

func (c codec[V]) Unmarshal(data []byte) (V, error) {
	var zero V
	if len(data) == 0 || data[0] != stored && data[0] != compressed {
		return zero, fmt.Errorf("fleetcall: these bytes are none of the codec %s", c.name)
	}
	rest := data[1:]
	if data[0] == compressed {
		var err error
		if rest, err = c.algorithm.decompress(rest, c.settings.limit); err != nil {
			return zero, fmt.Errorf("fleetcall: decompressing a result: %w", err)
		}
	}
	if len(rest) > c.settings.limit {
		return zero, ErrTooLarge
	}
	return c.inner.Unmarshal(rest)
}

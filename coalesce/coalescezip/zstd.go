package coalescezip

import (
	"errors"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Zstd returns a codec that compresses what inner makes of results by Zstandard
// (RFC 8878). Its name is "zstd+" and inner's.
func Zstd[V any](inner coalesce.Codec[V], opts ...Option) coalesce.Codec[V] {
	s := apply(opts)
	return wrap("zstd", newZstandard(s), s, inner)
}

type zstandard struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// An encoder takes megabytes for each compression that it can do at the same time,
// so that all codecs of a level share one, and at most so many goroutines use it.
const maxConcurrency = 4

var (
	encoders sync.Map // zstd.EncoderLevel → func() *zstd.Encoder
	decoders sync.Map // limit, an int → func() *zstd.Decoder
)

func newZstandard(s settings) zstandard {
	level := zstd.EncoderLevelFromZstd(s.level)
	concurrency := min(maxConcurrency, runtime.GOMAXPROCS(0))
	encoder, _ := encoders.LoadOrStore(level, sync.OnceValue(func() *zstd.Encoder {
		// Whole buffers only: nothing is started that has to be closed.
		return must(zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(concurrency),
			zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true)))
	}))
	decoder, _ := decoders.LoadOrStore(s.limit, sync.OnceValue(func() *zstd.Decoder {
		return must(zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(s.limit)), zstd.WithDecoderConcurrency(concurrency)))
	}))
	return zstandard{encoder.(func() *zstd.Encoder)(), decoder.(func() *zstd.Decoder)()}
}

// must is for options that are known to be good.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (z zstandard) compress(dst, src []byte) []byte { return z.encoder.EncodeAll(src, dst) }

func (z zstandard) decompress(src []byte, _ int) ([]byte, error) {
	data, err := z.decoder.DecodeAll(src, nil)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return nil, ErrTooLarge
	}
	return data, err
}

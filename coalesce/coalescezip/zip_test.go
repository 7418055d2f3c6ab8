package coalescezip_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescezip"
)

type blob = []byte

// both are the codecs, by the same settings.
func both(opts ...coalescezip.Option) map[string]coalesce.Codec[blob] {
	raw := coalesce.Raw[blob]()
	return map[string]coalesce.Codec[blob]{
		"zstd": coalescezip.Zstd(raw, opts...),
		"s2":   coalescezip.S2(raw, opts...),
	}
}

func noise(size int) blob {
	r := rand.New(rand.NewPCG(1, uint64(size)))
	b := make(blob, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestResultsArriveAsTheyWereOfEverySize(t *testing.T) {
	for name, codec := range both(coalescezip.WithThreshold(0), coalescezip.WithLimit(1<<20)) {
		for _, size := range []int{0, 1, 10, 255, 256, 257, 10_000, 300_000, 1 << 20} {
			for what, want := range map[string]blob{"noise": noise(size), "zeros": make(blob, size)} {
				data, err := codec.Marshal(want)
				if err != nil {
					t.Fatal(err)
				}
				if len(data) > size+1 {
					t.Errorf("%s: %d bytes of %s became %d", name, size, what, len(data))
				}
				if what == "zeros" && size > 1000 && len(data) > size/10 {
					t.Errorf("%s: %d zeros became %d bytes", name, size, len(data))
				}
				if got, err := codec.Unmarshal(data); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes of %s became %d, %v", name, size, what, len(got), err)
				}
			}
		}
	}
}

func TestSmallResultsAreSentAsTheyAre(t *testing.T) {
	for name, codec := range both() {
		data, err := codec.Marshal(make(blob, 255))
		if err != nil || len(data) != 256 {
			t.Errorf("%s: 255 zeros became %d bytes, %v", name, len(data), err)
		}
		if data, err := codec.Marshal(make(blob, 256)); err != nil || len(data) > 100 {
			t.Errorf("%s: 256 zeros became %d bytes, %v", name, len(data), err)
		}
	}
}

func TestTheCallersBytesAreNotWrittenTo(t *testing.T) {
	for name, codec := range both() {
		whole := []byte("shortAFTER")
		if _, err := codec.Marshal(whole[:5]); err != nil || string(whole) != "shortAFTER" {
			t.Errorf("%s: %q, %v", name, whole, err)
		}
	}
}

func TestABombIsAnError(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	var stream bytes.Buffer // one that does not tell its size in advance
	encoder.Reset(&stream)
	for range 64 {
		if _, err := encoder.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 2<<20)
	codecs := both(coalescezip.WithLimit(1 << 20))
	for what, bomb := range map[string]struct {
		codec string
		data  []byte
	}{
		"zstd":             {"zstd", encoder.EncodeAll(zeros, []byte{1})},
		"zstd as a stream": {"zstd", append([]byte{1}, stream.Bytes()...)},
		"s2":               {"s2", append([]byte{1}, s2.Encode(nil, zeros)...)},
		"s2 that lies":     {"s2", []byte("\x01\xff\xff\xff\xff\x0f")},
		"stored":           {"s2", append([]byte{0}, zeros...)},
	} {
		if _, err := codecs[bomb.codec].Unmarshal(bomb.data); !errors.Is(err, coalescezip.ErrTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for name, codec := range codecs {
		if _, err := codec.Marshal(zeros); !errors.Is(err, coalescezip.ErrTooLarge) {
			t.Errorf("%s sends what it does not take: %v", name, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	codecs := both(coalescezip.WithLimit(1 << 20))
	for _, codec := range codecs {
		for _, v := range []blob{nil, []byte("short"), make(blob, 1000)} {
			data, err := codec.Marshal(v)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte{})
	f.Add([]byte("\x02later"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, codec := range codecs {
			got, err := codec.Unmarshal(data)
			if err != nil {
				if got != nil {
					t.Errorf("%s: %q with %v", name, got, err)
				}
				continue
			}
			again, err := codec.Marshal(got)
			if err != nil {
				t.Fatalf("%s: %q became %d bytes that cannot be sent: %v", name, data, len(got), err)
			}
			if same, err := codec.Unmarshal(again); err != nil || !bytes.Equal(same, got) {
				t.Fatalf("%s: %d bytes became %d, %v", name, len(got), len(same), err)
			}
		}
	})
}

// described is a codec with a fingerprint of its own.
type described struct{ coalesce.Codec[blob] }

func (described) Fingerprint() uint64 { return 7 }
func (described) Check() error        { return errors.New("refused") }

func TestTheWrappedCodecIsAskedForItsCheckAndItsFingerprint(t *testing.T) {
	type lossy struct{ a int }
	_ = lossy{}.a
	if err := coalescezip.Zstd(coalesce.JSON[lossy]()).(coalesce.Checker).Check(); err == nil || !strings.Contains(err.Error(), "lossy.a") {
		t.Errorf("JSON: %v", err)
	}
	wrapped := coalescezip.S2[blob](described{coalesce.Raw[blob]()})
	if err := wrapped.(coalesce.Checker).Check(); err == nil || err.Error() != "refused" {
		t.Errorf("its own: %v", err)
	}
	if f, ok := wrapped.(coalesce.Fingerprinter); !ok || f.Fingerprint() != 7 {
		t.Error("the fingerprint is lost")
	}
	plain := coalescezip.Zstd(coalesce.Raw[blob]())
	if _, ok := plain.(coalesce.Fingerprinter); ok || plain.(coalesce.Checker).Check() != nil {
		t.Error("a codec without a fingerprint of its own has got one")
	}
	if wrapped.Name() != "s2+raw" {
		t.Errorf("it is named %q", wrapped.Name())
	}
}

func TestMistakesPanic(t *testing.T) {
	for what, mistake := range map[string]func(){
		"WithLimit":       func() { coalescezip.WithLimit(0) },
		"WithLevel":       func() { coalescezip.WithLevel(23) },
		"a codec to wrap": func() { coalescezip.Zstd[blob](nil) },
	} {
		func() {
			defer func() {
				if value := recover(); !strings.Contains(fmt.Sprint(value), what) {
					t.Errorf("%s: panicked with %v", what, value)
				}
			}()
			mistake()
		}()
	}
}

func TestManyGoroutinesUseOneCodec(t *testing.T) {
	for name, codec := range both() {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				want := bytes.Repeat([]byte(fmt.Sprintf("replica %d, ", i)), 1000+i)
				for range 20 {
					data, err := codec.Marshal(want)
					if err != nil {
						t.Error(err)
						return
					}
					if got, err := codec.Unmarshal(data); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: %d: %d bytes, %v", name, i, len(got), err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func BenchmarkCodecs(b *testing.B) {
	row := `{"id":%d,"name":"Keyboard %d","price":%d.99,"description":"A keyboard with %d keys."},`
	var page bytes.Buffer
	for i := range 300 {
		fmt.Fprintf(&page, row, i, i*7%13, i*31%97, i)
	}
	for _, name := range []string{"s2", "zstd"} {
		codec := both()[name]
		data, err := codec.Marshal(page.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/marshal", func(b *testing.B) {
			b.SetBytes(int64(page.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := codec.Marshal(page.Bytes()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(data))/float64(page.Len()), "ratio")
		})
		b.Run(name+"/unmarshal", func(b *testing.B) {
			b.SetBytes(int64(page.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := codec.Unmarshal(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

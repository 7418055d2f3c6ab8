package shadow

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

const (
	// period is the time that a report is of.
	period = int64(time.Second / time.Microsecond)
	// maxReplicas bounds how many replicas are heard.
	maxReplicas = 1024
	// reportVersion is the first byte of a report. Who knows another version alone hears of
	// a replica that reports nothing, and does not count the second.
	reportVersion = 1
)

// errGarbled is the error of a report that cannot be read.
var errGarbled = errors.New("fleetcall: a report of another replica cannot be read")

// report is what a replica tells of a second. As bytes it is: the version; the replica,
// the second and the fingerprint, 8 bytes each; and then in varints the flags, the calls,
// the candidates, and the events of each key in the order of time.
type report struct {
	replica     uint64
	second      int64  // by Redis' clock, since 1970
	fingerprint uint64 // of what the replica followed
	all         bool   // it followed all keys
	partial     bool   // events are missing
	gone        bool   // the replica reports no more
	calls       uint64 // that ended, of all keys
	candidates  []candidate
	events      []reported
}

// reported is an event by Redis' clock, in µs since 1970.
type reported struct {
	key    uint64
	at     int64
	number uint32
	kind   kind
}

const (
	flagAll = 1 << iota
	flagPartial
	flagGone
)

const headLen = 1 + 8 + 8 + 8

// encode returns the report as bytes. It sorts the events.
func (r *report) encode() []byte {
	b := make([]byte, 0, headLen+16+9*len(r.candidates)+6*len(r.events))
	b = append(b, reportVersion)
	b = binary.LittleEndian.AppendUint64(b, r.replica)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.second))
	b = binary.LittleEndian.AppendUint64(b, r.fingerprint)
	flags := uint64(0)
	for flag, set := range map[uint64]bool{flagAll: r.all, flagPartial: r.partial, flagGone: r.gone} {
		if set {
			flags |= flag
		}
	}
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, r.calls)
	b = binary.AppendUvarint(b, uint64(len(r.candidates)))
	for _, c := range r.candidates {
		b = binary.LittleEndian.AppendUint64(b, c.key)
		n := c.calls << 1
		if c.followed {
			n |= 1
		}
		b = binary.AppendUvarint(b, n)
	}
	slices.SortStableFunc(r.events, func(a, b reported) int {
		switch {
		case a.key != b.key && a.key < b.key, a.key == b.key && a.at < b.at:
			return -1
		case a.key == b.key && a.at == b.at:
			return 0
		}
		return 1
	})
	for i := 0; i < len(r.events); {
		key, n := r.events[i].key, 1
		for i+n < len(r.events) && r.events[i+n].key == key {
			n++
		}
		b = binary.LittleEndian.AppendUint64(b, key)
		b = binary.AppendUvarint(b, uint64(n))
		last := r.second * period
		for _, e := range r.events[i : i+n] {
			at := max(e.at, last) // one that was noted late is of this second too
			b = binary.AppendUvarint(b, uint64(at-last)<<2|uint64(e.kind))
			b = binary.AppendUvarint(b, uint64(e.number))
			last = at
		}
		i += n
	}
	return b
}

// head returns which replica reports of which second, and whether it is its last report.
func head(b []byte) (replica uint64, second int64, gone bool, err error) {
	if len(b) <= headLen || b[0] != reportVersion {
		return 0, 0, false, errGarbled
	}
	return binary.LittleEndian.Uint64(b[1:]), int64(binary.LittleEndian.Uint64(b[9:])), b[headLen]&flagGone != 0, nil
}

// reader reads what encode wrote.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) word() uint64 {
	if len(r.rest) < 8 {
		r.bad, r.rest = true, nil
		return 0
	}
	n := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return n
}

// decode reads a report. What it returns is no longer than a few times b, whatever b is.
func decode(b []byte) (*report, error) {
	replica, second, gone, err := head(b)
	if err != nil {
		return nil, err
	}
	r := &report{replica: replica, second: second, gone: gone, fingerprint: binary.LittleEndian.Uint64(b[17:])}
	in := reader{rest: b[headLen:]}
	flags := in.number()
	r.all, r.partial = flags&flagAll != 0, flags&flagPartial != 0
	r.calls = in.number()
	n := in.number()
	if n > maxCandidates || second < 0 || second > 1<<40 {
		return nil, errGarbled
	}
	for range n {
		key, calls := in.word(), in.number()
		r.candidates = append(r.candidates, candidate{key, min(calls>>1, 1<<40), calls&1 != 0})
	}
	for len(in.rest) > 0 {
		key, n := in.word(), in.number()
		if n > maxEvents {
			return nil, errGarbled
		}
		at := second * period
		for range n {
			word, number := in.number(), in.number()
			if in.bad {
				return nil, errGarbled
			}
			at = min(at+int64(word>>2&(1<<40-1)), (second+1)*period-1)
			r.events = append(r.events, reported{key, at, uint32(number), kind(word & 3)})
		}
	}
	if in.bad || len(r.events) > maxEvents {
		return nil, errGarbled
	}
	return r, nil
}

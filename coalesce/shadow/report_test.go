package shadow

import (
	"reflect"
	"testing"
)

func TestAReportArrivesAsItWasSent(t *testing.T) {
	const second = 1_700_000_000
	sent := &report{
		replica: 7, second: second, fingerprint: 9, all: true, calls: 300,
		candidates: []candidate{{1 << 63, 1 << 30, true}, {2, 0, false}},
		events: []reported{
			{key: 5, at: second * period, number: 1, kind: began},
			{key: 5, at: second*period + 1, number: 1, kind: left},
			{key: 1 << 63, at: (second+1)*period - 1, number: 1 << 31, kind: ended},
			{key: 1 << 63, at: (second+1)*period - 1, kind: forgot},
		},
	}
	got, err := decode(sent.encode())
	if err != nil || !reflect.DeepEqual(got, sent) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, sent)
	}
}

func FuzzReport(f *testing.F) {
	f.Add((&report{replica: 1, second: 2, events: []reported{{3, 2 * period, 1, began}, {3, 2*period + 5, 1, ended}}}).encode())
	f.Add((&report{replica: 1, second: 2, gone: true}).encode())
	f.Add([]byte{reportVersion})
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := decode(message)
		if err != nil {
			return
		}
		if len(r.events) > len(message) || len(r.candidates) > len(message) {
			t.Errorf("%d bytes became %d events", len(message), len(r.events))
		}
		for _, e := range r.events {
			if e.at < r.second*period || e.at >= (r.second+1)*period {
				t.Errorf("an event of second %d is at %d", r.second, e.at)
			}
		}
		replay := newReplay(0)
		var all []happened
		for _, e := range r.events {
			all = append(all, happened{e, r.replica, nil})
		}
		inOrder(all)
		for _, e := range all {
			replay.next(e)
		}
		again, err := decode(r.encode())
		if err != nil || len(again.events) != len(r.events) {
			t.Errorf("decoded again: %v", err)
		}
	})
}

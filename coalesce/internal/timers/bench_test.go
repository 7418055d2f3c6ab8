package timers

import (
	"testing"
	"time"
)

// quiet is an owner whose timer is always stopped.
type quiet struct{ Timer }

func (*quiet) OnExpire(*Timer) { panic("it expired") }

// BenchmarkStoppedTimer sets a deadline and stops it at once, as a flight does whose
// command is answered, from all cores: by this package, and by the runtime.
func BenchmarkStoppedTimer(b *testing.B) {
	b.Run("timers.List", func(b *testing.B) {
		b.ReportAllocs()
		var l List
		defer l.Close()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				owner := new(struct {
					quiet
					rest [64]byte // of a flight, which the timer is a part of
				})
				l.Set(&owner.Timer, owner, time.Now().Add(time.Minute))
				if !l.Stop(&owner.Timer) {
					b.Error("it was not set")
				}
			}
		})
	})
	b.Run("time.AfterFunc", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				owner := new(struct {
					timer *time.Timer
					rest  [64]byte
				})
				owner.timer = time.AfterFunc(time.Minute, func() { panic(owner) })
				if !owner.timer.Stop() {
					b.Error("it was not set")
				}
			}
		})
	})
}

// Package coalescetest has a fleet without a Redis for the tests of programs
// that use fleetcall, and a suite that every coalesce.Group must pass.
//
// # A fleet without a Redis
//
// A Fleet takes the place of Redis, and each Group that NewGroup makes with it
// is a replica of its own:
//
//	fleet := coalescetest.NewFleet()
//	products := coalescetest.NewGroup[Product](fleet, "products")
//	handler := NewHandler(products) // it takes a coalesce.Group[Product]
//
// The code under test has to take the interface, because a Group of this package is no
// *distributed.Group: it has neither With nor Stats, which the interface lacks, too.
//
// Calls on one Group are merged as in one process. Calls on several Groups of
// one name are merged as in a fleet: their results travel as bytes, so that a
// test sees the copy that another replica would see, and errors arrive as
// *coalesce.RemoteError.
//
// A test brings about what is rare or hard to time in a real fleet:
//
//   - LeadElsewhere: another replica leads a key. The test says when and how its
//     flight ends: with a value, an error, a panic, or its death. Callers are
//     RemoteFollower, or take over.
//   - Cache: a key has a result that finished within MaxAge. Callers are Cached.
//   - Poison: the leaders of a key died one after another. Callers get
//     coalesce.ErrPoisoned.
//   - Fleet.StopRedis: Redis cannot be used. Callers are Fallback, or get
//     coalesce.ErrUnavailable where the Group fails closed.
//
// Nothing here depends on time: no lease runs out, no timeout passes, and each
// step happens because a test or a caller does something. The fleet works inside
// a testing/synctest bubble and outside of one.
//
// Use it to test what a program does with a role, a value or an error. It does
// not show how long anything takes, what Redis is asked, what a real lease,
// flight timeout or MaxAge does, or whether a Redis is set up rightly: for that,
// run the program against a Redis.
//
// # A suite for every Group
//
// Exercise checks what package coalesce promises of a Group. Hold a Group of your
// own to it, for example one that wraps another with metrics:
//
//	func TestMeasuredGroup(t *testing.T) {
//		coalescetest.Exercise(t, coalescetest.Harness{
//			Merges: true,
//			Replicas: func(*testing.T, int) []coalesce.Group[string] {
//				return []coalesce.Group[string]{Measure(local.Tier(new(local.Group[string, string])))}
//			},
//		})
//	}
package coalescetest

package protocol

import (
	"strconv"
	"time"
)

// PieceBytes is the length of the pieces in which a large payload is stored. While Redis
// takes or gives one, nobody else is answered: that is well under a millisecond. Shorter
// ones would cost more commands, and take longer in all.
const PieceBytes = 512 << 10

// Store returns the commands that store the pieces of a large outcome of the flight that
// n was made for. They live for the hand-off TTL, and those of an outcome that is kept for
// longer than MaxAge: by a lease TTL, so that they are there for as long as the notice of
// the finish, which comes later.
func Store(n Names, s *Settings, pieces [][]byte, maxAge time.Duration) []Command {
	lives := s.handoffTTL
	if maxAge > 0 {
		lives = max(s.milliseconds(s.handoffTTL), maxAge.Milliseconds()+s.milliseconds(s.leaseTTL))
	}
	all := make([]Command, len(pieces))
	for i, piece := range pieces {
		all[i] = Command{plain: "store", bytes: len(piece), args: []any{"set", n.pieceOf(n.Flight(), i), piece, "px", lives}}
	}
	return all
}

// Fetch returns the commands that read the pieces of a large outcome of a flight, each
// into its buffer, which must be as long as the piece. The reply is how many bytes came
// (an int), -1 if the piece is longer; nil: there is no such piece. Until it has come, nobody else may use the
// buffer, and never again when there was none.
func Fetch(n Names, flight string, buffers [][]byte) []Command {
	all := make([]Command, len(buffers))
	for i, buffer := range buffers {
		all[i] = Command{plain: "fetch", bytes: len(buffer), into: buffer, args: []any{"get", n.pieceOf(flight, i)}}
	}
	return all
}

// Expire returns the commands that let so many pieces of a flight's outcome go, which nobody
// finds any more. Who fetches them now has the hand-off TTL.
func Expire(n Names, s *Settings, flight string, pieces int) []Command {
	all := make([]Command, pieces)
	for i := range all {
		all[i] = Command{plain: "expire", args: []any{"pexpire", n.pieceOf(flight, i), s.handoffTTL}}
	}
	return all
}

// pieceOf returns the name of a piece of a flight's outcome.
func (n Names) pieceOf(flight string, i int) string {
	return n.resultOf(flight) + ":" + strconv.Itoa(i)
}

package coalescehttp

import (
	"net/http"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Answer is what travels between those who share a flight: an answer of the server,
// or the reason why they may not share it.
type Answer struct {
	Flight  string // the id of the flight
	Replica string `json:",omitempty"` // that led it
	// Failure says that there is no answer: the server could not be reached.
	Failure *coalesce.RemoteError `json:",omitempty"`
	// Alone says why the answer may not be shared; then it has nothing but what the
	// key of the next request depends on.
	Alone  Reason      `json:",omitempty"`
	Vary   []string    `json:",omitempty"` // fields of the request that the answer depends on, canonical and sorted
	Fields string      `json:",omitempty"` // a digest of those fields of the leader's request
	Status int         `json:",omitempty"`
	Header http.Header `json:",omitempty"`
	Body   []byte      `json:",omitempty"`
}

// Decision is what became of one request.
type Decision struct {
	Role   string // a coalesce.Role, or "alone"
	Reason Reason // why it was alone; empty when it was not
	Flight string // the id of its flight, when it had one
}

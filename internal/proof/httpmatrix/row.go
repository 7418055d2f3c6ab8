package httpmatrix

import "net/http"

// Row is one rule: two requests, the second of which comes while the first is answered,
// and what must become of them.
type Row struct {
	Rule     string
	Source   string // the section that the rule is from
	Settings Settings

	First, Second Request // the second is like the first where it says nothing
	Answer        Answer
	Want          Fate

	// Follower checks the answer of a second request that shares the first one's.
	Follower func(header http.Header) error
}

// Fate is what becomes of the two.
type Fate int

const (
	// Shared: one answer for both.
	Shared Fate = iota
	// Apart: the second never waits for the first, and is merged with its like.
	Apart
	// Alone: neither is merged with anything; the second never waits.
	Alone
	// Unshared: the second waits until the header of the answer is there, which says that
	// it is the first one's alone.
	Unshared
)

// Request is a GET of /page, unless it says otherwise.
type Request struct {
	Method string
	Target string // path and query
	Host   string
	Fields []string // names and values, by turns
	Body   string
}

// Answer is a 200 with a body, unless it says otherwise.
type Answer struct {
	Status  int
	Fields  []string // names and values, by turns
	Trailer []string // names and values, after the body
	NoBody  bool
	Handler http.HandlerFunc // writes the body
}

func (r Request) like(first Request) Request {
	if r.Method == "" {
		r.Method = first.Method
	}
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if r.Target == "" {
		r.Target = first.Target
	}
	if r.Target == "" {
		r.Target = "/page"
	}
	if r.Host == "" {
		r.Host = first.Host
	}
	if r.Host == "" {
		r.Host = "matrix.example"
	}
	if r.Fields == nil {
		r.Fields = first.Fields
	}
	if r.Body == "" {
		r.Body = first.Body
	}
	return r
}

// fields makes a Request of fields alone. Without arguments, the request has none.
func fields(f ...string) Request {
	if f == nil {
		f = []string{}
	}
	return Request{Fields: f}
}

// says makes an Answer with these fields.
func says(f ...string) Answer { return Answer{Fields: f} }

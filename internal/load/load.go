// Package load sends a number of GET requests to a server, so many at a time,
// and measures the answers.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxBody   = 4 << 20 // of an answer, in bytes
	maxLabels = 50      // distinct errors, replicas and roles that are told apart
	maxLabel  = 200     // bytes of one
	others    = "others"
)

// Config says what to send.
type Config struct {
	// URLs are asked in turn: request i goes to URLs[i mod len(URLs)].
	URLs        []string
	Requests    int
	Concurrency int           // requests under way at once; at most Requests are
	Timeout     time.Duration // of one request; zero: 5 minutes
	// Connect opens as many connections to the first URL's host as there are
	// requests at once, before the first request is sent and the clock starts,
	// so that all of them arrive together.
	Connect bool
	// Check looks at an answer with status 200 and says what is wrong with
	// it. It is called concurrently. nil: every one is right.
	Check func(url string, header http.Header, body []byte) error
	// Answered is called after each request, concurrently. nil: nothing is.
	Answered func()

	dial dialFunc // nil: a net.Dialer's
}

// Result is what a run measured. Durations in its JSON form are milliseconds.
type Result struct {
	Requests int // that were sent and have ended
	OK       int // answered with status 200 and found right
	Failed   int // all others
	Duration time.Duration
	Latency  Latency

	Statuses map[int]int    // answers by status
	Errors   map[string]int // failures by cause
	Replicas map[string]int // answers by X-Replica
	Roles    map[string]int // answers by X-Coalesce-Role

	Histogram  []Bar   // the answers' latencies
	Timeline   []Slice // what ended when
	SliceWidth time.Duration
}

// Latency is the distribution of the times from sending a request to having
// its whole answer, of all requests that were answered, to three significant
// digits.
type Latency struct {
	Average, P50, P95, P99, Max time.Duration
}

// PerSecond returns how many requests ended per second.
func (r *Result) PerSecond() float64 {
	if r.Duration <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Duration.Seconds()
}

// Run sends the requests and returns when all have ended. When ctx ends first
// it returns what was measured until then, and ctx's error.
func Run(ctx context.Context, config Config) (*Result, error) {
	if len(config.URLs) == 0 || config.Requests < 1 || config.Concurrency < 1 {
		return nil, errors.New("fleetcall: a load needs a URL, at least one request, and at least one at a time")
	}
	if config.Timeout == 0 {
		config.Timeout = 5 * time.Minute
	}
	workers := min(config.Concurrency, config.Requests)
	if limit, known := openFiles(); known && uint64(workers)+64 > limit {
		return nil, fmt.Errorf("fleetcall: %d requests at once need as many open files, and this process may open %d; raise the limit (ulimit -n) or lower the concurrency", workers, limit)
	}
	dial := config.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: time.Minute}).DialContext
	}
	if config.Connect {
		open, err := connect(ctx, dial, config.URLs[0], workers)
		if err != nil {
			return nil, err
		}
		defer open.close()
		dial = open.take
	}
	transport := &http.Transport{
		Proxy:        http.ProxyFromEnvironment, // as a Target does
		DialContext:  dial,
		MaxIdleConns: workers,
		// Without a limit, a request whose connection is still being made may
		// be sent on another's, and that one opens one more.
		MaxConnsPerHost:     workers,
		MaxIdleConnsPerHost: workers,
		DisableCompression:  true,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1: one request a connection
	}
	defer transport.CloseIdleConnections()
	r := &run{
		config: config,
		client: &http.Client{Transport: transport, Timeout: config.Timeout},
		// From a microsecond to the time limit.
		histogram: hdrhistogram.New(1, max(config.Timeout.Microseconds(), 10), 3),
		timeline:  newTimeline(),
		result:    Result{Statuses: map[int]int{}, Errors: map[string]int{}, Replicas: map[string]int{}, Roles: map[string]int{}},
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	release := make(chan struct{})
	for range workers {
		wg.Go(func() {
			<-release
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= config.Requests {
					return
				}
				r.one(ctx, config.URLs[i%len(config.URLs)])
			}
		})
	}
	r.begin = time.Now()
	close(release)
	wg.Wait()
	r.result.Duration = time.Since(r.begin)
	r.result.Latency = Latency{
		Average: time.Duration(r.histogram.Mean() * float64(time.Microsecond)),
		P50:     micros(r.histogram.ValueAtQuantile(50)),
		P95:     micros(r.histogram.ValueAtQuantile(95)),
		P99:     micros(r.histogram.ValueAtQuantile(99)),
		Max:     micros(r.histogram.Max()),
	}
	r.result.Histogram = bars(r.histogram)
	r.result.Timeline, r.result.SliceWidth = r.timeline.result(), r.timeline.width
	return &r.result, ctx.Err()
}

type run struct {
	config Config
	client *http.Client
	begin  time.Time

	mu        sync.Mutex // guards what follows
	histogram *hdrhistogram.Histogram
	timeline  *timeline
	result    Result
}

func (r *run) one(ctx context.Context, url string) {
	begin := time.Now()
	resp, body, err := r.get(ctx, url)
	took := time.Since(begin)
	if ctx.Err() != nil && err != nil {
		return // the run was broken off, not the request refused
	}
	answered := err == nil
	if answered && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	} else if answered && r.config.Check != nil {
		if wrong := r.config.Check(url, resp.Header, body); wrong != nil {
			err = fmt.Errorf("wrong answer: %w", wrong)
		}
	}
	r.mu.Lock()
	r.result.Requests++
	r.timeline.add(begin.Add(took).Sub(r.begin), took, answered, err == nil)
	if answered {
		// A value over the histogram's range cannot be: the client gave up.
		_ = r.histogram.RecordValue(max(took.Microseconds(), 1))
		r.result.Statuses[resp.StatusCode]++
		count(r.result.Replicas, resp.Header.Get("X-Replica"))
		count(r.result.Roles, resp.Header.Get("X-Coalesce-Role"))
	}
	if err == nil {
		r.result.OK++
	} else {
		r.result.Failed++
		count(r.result.Errors, cause(err))
	}
	r.mu.Unlock()
	if r.config.Answered != nil {
		r.config.Answered()
	}
}

func (r *run) get(ctx context.Context, url string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, body, err
}

// count bounds the number of labels.
func count(counts map[string]int, text string) {
	if text == "" {
		return
	}
	label := printable(text)
	if _, known := counts[label]; !known && len(counts) >= maxLabels {
		label = others
	}
	counts[label]++
}

// printable makes what comes from the server safe to print, and short.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	if len(text) > maxLabel {
		text = strings.ToValidUTF8(text[:maxLabel], "") // the cut may be inside a character
	}
	return text
}

// cause names an error without the addresses that make each one different.
func cause(err error) string {
	var timeout interface{ Timeout() bool }
	var op *net.OpError
	var sys syscall.Errno
	var u *url.Error
	switch {
	case errors.As(err, &sys) && errors.As(err, &op):
		return op.Op + ": " + sys.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "time limit exceeded"
	case errors.As(err, &u):
		return u.Err.Error()
	}
	return err.Error()
}

func openFiles() (limit uint64, known bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, false
	}
	return uint64(r.Cur), true
}

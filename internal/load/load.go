// Package load sends GET requests to a server, many at a time, and measures the
// responses.
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

	"github.com/fleetcall/fleetcall/internal/process"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxBody   = 4 << 20 // of a response, in bytes
	maxLabels = 50      // distinct errors, replicas and roles; further ones count as others
	maxLabel  = 200     // bytes of one label
	others    = "others"
)

// Config describes a load.
type Config struct {
	// Request i goes to URLs[i mod len(URLs)].
	URLs        []string
	Requests    int
	Concurrency int           // requests under way at the same time
	Timeout     time.Duration // of one request; zero: 5 minutes
	// Connect opens a connection to the first URL's host for each concurrent request
	// before it sends the first one and starts the clock. So all requests of a burst
	// arrive together.
	Connect bool
	// Check, if not nil, returns what is wrong with a response of status 200, or nil.
	// It is called concurrently.
	Check func(url string, header http.Header, body []byte) error
	// Answered, if not nil, is called after each request, concurrently.
	Answered func()

	dial dialFunc // nil: that of a net.Dialer
}

// Result has the measurements of a run.
type Result struct {
	Requests int // that have ended
	OK       int // responses with status 200 that passed Check
	Failed   int // all others
	Duration time.Duration
	Latency  Latency

	Statuses map[int]int    // responses by status
	Errors   map[string]int // failures by cause
	Replicas map[string]int // responses by X-Replica
	Roles    map[string]int // responses by X-Coalesce-Role
	KeyRoles map[string]int // keys of the responses for many, by X-Coalesce-Roles

	Histogram     []Bucket   // latencies of the responses
	Timeline      []Interval // requests by the time of their end
	IntervalWidth time.Duration
}

// Latency is the distribution of latencies, to three significant digits. A latency is
// the time from sending a request to having its whole response.
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

// Run sends the requests and returns when all have ended. If ctx ends first, Run
// returns what it has measured until then, and the error of ctx.
func Run(ctx context.Context, config Config) (*Result, error) {
	workers, err := config.check()
	if err != nil {
		return nil, err
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
	transport := newTransport(dial, workers)
	defer transport.CloseIdleConnections()
	r := &run{
		config: config,
		client: &http.Client{Transport: transport, Timeout: config.Timeout},
		// from a microsecond to the time limit, with three significant digits
		histogram: hdrhistogram.New(1, max(config.Timeout.Microseconds(), 10), 3),
		timeline:  newTimeline(),
		result:    Result{Statuses: map[int]int{}, Errors: map[string]int{}, Replicas: map[string]int{}, Roles: map[string]int{}, KeyRoles: map[string]int{}},
	}
	r.sendAll(ctx, workers)
	r.summarize()
	return &r.result, ctx.Err()
}

// check sets the timeout's default, and returns how many requests are sent at a
// time.
func (c *Config) check() (workers int, err error) {
	if len(c.URLs) == 0 || c.Requests < 1 || c.Concurrency < 1 {
		return 0, errors.New("fleetcall: a load needs a URL, at least one request, and at least one at a time")
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Minute
	}
	workers = min(c.Concurrency, c.Requests)
	if limit, _, known := process.OpenFiles(); known && uint64(workers)+64 > limit {
		return 0, fmt.Errorf("fleetcall: %d requests at once need as many open files, and this process may open %d; raise the limit (ulimit -n) or lower the concurrency", workers, limit)
	}
	return workers, nil
}

func newTransport(dial dialFunc, workers int) *http.Transport {
	return &http.Transport{
		Proxy:        http.ProxyFromEnvironment, // as a Target does
		DialContext:  dial,
		MaxIdleConns: workers,
		// Without a limit, a request that waits for its connection may be sent on
		// another request's, which then opens one more.
		MaxConnsPerHost:     workers,
		MaxIdleConnsPerHost: workers,
		DisableCompression:  true,
		// An empty map keeps to HTTP/1.1, where each connection carries one request
		// at a time.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
}

type run struct {
	config Config
	client *http.Client
	begin  time.Time

	mu        sync.Mutex // guards the fields below
	histogram *hdrhistogram.Histogram
	timeline  *timeline
	result    Result
}

// sendAll sends all requests, one at a time on each worker. The workers start
// together.
func (r *run) sendAll(ctx context.Context, workers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	release := make(chan struct{})
	for range workers {
		wg.Go(func() {
			<-release
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= r.config.Requests {
					return
				}
				r.send(ctx, r.config.URLs[i%len(r.config.URLs)])
			}
		})
	}
	r.begin = time.Now()
	close(release)
	wg.Wait()
	r.result.Duration = time.Since(r.begin)
}

// summarize completes the result when all requests have ended.
func (r *run) summarize() {
	r.result.Latency = Latency{
		Average: time.Duration(r.histogram.Mean() * float64(time.Microsecond)),
		P50:     micros(r.histogram.ValueAtQuantile(50)),
		P95:     micros(r.histogram.ValueAtQuantile(95)),
		P99:     micros(r.histogram.ValueAtQuantile(99)),
		Max:     micros(r.histogram.Max()),
	}
	r.result.Histogram = buckets(r.histogram)
	r.result.Timeline, r.result.IntervalWidth = r.timeline.result(), r.timeline.width
}

func (r *run) send(ctx context.Context, url string) {
	begin := time.Now()
	resp, body, err := r.get(ctx, url)
	took := time.Since(begin)
	if ctx.Err() != nil && err != nil {
		return // the run was cancelled, so the request has not failed
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
		// The value is always in range, because the client gives up at the time limit.
		_ = r.histogram.RecordValue(max(took.Microseconds(), 1))
		r.result.Statuses[resp.StatusCode]++
		count(r.result.Replicas, resp.Header.Get("X-Replica"))
		count(r.result.Roles, resp.Header.Get("X-Coalesce-Role"))
		countKeys(r.result.KeyRoles, resp.Header)
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

// count counts a label. When there are maxLabels already, it counts a new one as
// others.
func count(counts map[string]int, text string) { countMany(counts, text, 1) }

func countMany(counts map[string]int, text string, n int) {
	if text == "" {
		return
	}
	label := printable(text)
	if _, known := counts[label]; !known && len(counts) >= maxLabels {
		label = others
	}
	counts[label] += n
}

// printable makes a text from the server short and safe to print.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	if len(text) > maxLabel {
		text = strings.ToValidUTF8(text[:maxLabel], "") // drops a character that was cut in two
	}
	return text
}

// cause describes an error without its addresses, so that equal failures have equal
// descriptions.
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

package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// contract is the OpenAPI document, against which the tests check every response.
type contract struct {
	doc    *openapi3.T
	router routers.Router

	mu   sync.Mutex
	seen map[string]bool // the correct responses so far, such as "GET /path 200"
}

// loadContract reads the document that the server sends.
var loadContract = sync.OnceValues(func() (*contract, error) {
	server, err := api.New(api.Config{Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off", Replica: "r"})
	if err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	server.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	return newContract(w.Body.Bytes())
})

func newContract(document []byte) (*contract, error) {
	closed, err := closeObjects(document)
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(closed)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	return &contract{doc: doc, router: router, seen: map[string]bool{}}, nil
}

// closeObjects changes the document so that a field that it does not describe is an
// error. The document itself allows such fields, because clients must accept fields
// that are added later.
func closeObjects(document []byte) ([]byte, error) {
	var tree any
	if err := json.Unmarshal(document, &tree); err != nil {
		return nil, err
	}
	var walk func(any)
	walk = func(node any) {
		switch n := node.(type) {
		case map[string]any:
			if _, has := n["properties"]; has && n["type"] == "object" {
				n["additionalProperties"] = false
			}
			for _, child := range n {
				walk(child)
			}
		case []any:
			for _, child := range n {
				walk(child)
			}
		}
	}
	walk(tree)
	return json.Marshal(tree)
}

// commonHeaders are headers of HTTP itself, and headers that tell a browser how it may
// use a response. The document does not list them.
var commonHeaders = []string{"Content-Type", "Content-Length", "Date", "Cache-Control", "Vary", "Connection",
	"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Content-Security-Policy", "Cross-Origin-Resource-Policy"}

// check returns an error that says how a response differs from the document.
func (c *contract) check(r *http.Request, a response) error {
	asked := r
	if r.Method == http.MethodHead { // the document describes it by GET
		asked = r.Clone(r.Context())
		asked.Method = http.MethodGet
	}
	route, params, err := c.router.FindRoute(asked)
	switch {
	case errors.Is(err, routers.ErrPathNotFound):
		route, err = c.sharedRoute(r, "NotFound", http.StatusNotFound), nil
	case errors.Is(err, routers.ErrMethodNotAllowed):
		route, err = c.sharedRoute(r, "MethodNotAllowed", http.StatusMethodNotAllowed), nil
	}
	if err != nil {
		return err
	}
	request := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	if a.status == http.StatusOK {
		if err := openapi3filter.ValidateRequest(r.Context(), request); err != nil {
			return fmt.Errorf("answered 200 to what the document does not allow: %w", err)
		}
	}
	response := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: request, Status: a.status, Header: a.header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if kind := a.header.Get("Content-Type"); kind != "" && !strings.Contains(kind, "json") {
		response.Options.ExcludeResponseBody = true // the validator cannot decode it
		if documented := route.Operation.Responses.Status(a.status); documented == nil || documented.Value.Content.Get(a.header.Get("Content-Type")) == nil {
			return fmt.Errorf("%s is not in the document", a.header.Get("Content-Type"))
		}
	}
	if err := openapi3filter.ValidateResponse(r.Context(), response.SetBodyBytes([]byte(a.body))); err != nil {
		return err
	}
	documented := route.Operation.Responses.Status(a.status)
	if documented == nil { // the validator accepts this for HEAD
		return fmt.Errorf("status %d is not in the document", a.status)
	}
	known := slices.Clone(commonHeaders)
	for name := range documented.Value.Headers {
		known = append(known, http.CanonicalHeaderKey(name))
	}
	for name := range a.header {
		if !slices.Contains(known, name) {
			return fmt.Errorf("header %s is not in the document", name)
		}
	}
	c.mu.Lock()
	c.seen[fmt.Sprintf("%s %s %d", r.Method, route.Path, a.status)] = true
	c.mu.Unlock()
	return nil
}

// sharedRoute returns a route for responses that belong to no endpoint.
func (c *contract) sharedRoute(r *http.Request, name string, status int) *routers.Route {
	responses := openapi3.NewResponses(openapi3.WithStatus(status, c.doc.Components.Responses[name]))
	return &routers.Route{Spec: c.doc, Method: r.Method, Path: name, PathItem: &openapi3.PathItem{}, Operation: &openapi3.Operation{Responses: responses}}
}

// expectDocumented fails the test when a response differs from the document.
func expectDocumented(t *testing.T, r *http.Request, a response) {
	t.Helper()
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.check(r, a); err != nil {
		t.Errorf("%s %s answers %d against the document: %v\n%s", r.Method, r.URL, a.status, err, a.body)
	}
}

func TestTheDocumentHasExactlyTheServersRoutes(t *testing.T) {
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	var documented, served, head []string
	for path, item := range c.doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	f := start(t, &store{}, nil)
	for _, r := range f.Handler().(*echo.Echo).Routes() {
		path := strings.NewReplacer(":id", "{id}", ":name", "{name}").Replace(r.Path)
		if r.Method == http.MethodHead {
			head = append(head, "GET "+path)
		} else {
			served = append(served, r.Method+" "+path)
		}
	}
	var listed []string
	for _, e := range decode[api.Index](t, f.get(t, "/")).Endpoints {
		listed = append(listed, e.Method+" "+e.Path)
		if o := c.doc.Paths.Value(e.Path).GetOperation(e.Method); o == nil || o.Summary != e.Description {
			t.Errorf("%s %s is %q in the list of endpoints, and not in the document", e.Method, e.Path, e.Description)
		}
	}
	for _, list := range [][]string{documented, served, head, listed} {
		slices.Sort(list)
	}
	if !slices.Equal(documented, served) || !slices.Equal(listed, served) {
		t.Errorf("served %q\nlisted by / %q\nin the document %q", served, listed, documented)
	}
	gets := slices.DeleteFunc(slices.Clone(served), func(route string) bool { return !strings.HasPrefix(route, "GET ") })
	if !slices.Equal(gets, head) {
		t.Errorf("GET is served at %q, HEAD at %q", gets, head)
	}
}

// The test provokes every response of the document. Sending a request checks its
// response, so at the end each documented status must have been seen.
func TestEveryAnswerOfTheDocumentIsGiven(t *testing.T) {
	ask := func(s *store, change func(*api.Config), method string, header http.Header, paths ...string) {
		t.Helper()
		f := start(t, s, change)
		for _, path := range paths {
			f.send(t, method, path, header)
		}
	}
	products := []string{"/product/normal/1", "/product/coalesced/1", "/products?ids=1,5000"}
	all := append([]string{"/health", "/livez", "/readyz", "/stats", "/metrics", "/docs", "/openapi.json", "/", "/assets/page.js"}, products...)
	ask(&store{}, nil, http.MethodGet, nil, all...)
	ask(&store{}, nil, http.MethodGet, nil, "/assets/page.css", "/assets/icon.svg", "/assets/uPlot.LICENSE.txt", "/assets/nothing")
	ask(&store{}, nil, http.MethodHead, nil, append(all, "/events")...)
	openEveryStream(t)
	sendEveryBurst(t)
	ask(&store{}, nil, http.MethodGet, http.Header{"Accept": {"text/html"}}, "/")
	ask(&store{}, nil, http.MethodGet, nil, "/product/normal/0", "/product/coalesced/x", "/products?ids=x", "/stats?scope=x", "/stats?scope=fleet",
		"/product/normal/1001", "/product/coalesced/1001", "/nothing", "/stats/reset")
	ask(failing(product.ErrBusy), nil, http.MethodGet, nil, products...)
	ask(failing(coalesce.ErrFlightTimeout), nil, http.MethodGet, nil, products...)
	ask(failing(errors.New("broken")), nil, http.MethodGet, nil, products...)
	ask(&store{ping: func(context.Context) error { return product.ErrUnavailable }}, nil, http.MethodGet, nil, "/health")
	ask(&store{}, nil, http.MethodPost, nil, "/stats/reset", "/stats/reset?scope=fleet", "/stats/reset?scope=x", "/stats")
	ask(&store{}, nil, http.MethodPost, http.Header{"Sec-Fetch-Site": {"cross-site"}}, "/stats/reset")
	ask(&store{}, func(c *api.Config) { c.AdminToken = "letmein" }, http.MethodPost, nil, "/stats/reset")
	// Redis is down, and not all counts of the tier are zero.
	ask(&store{}, func(c *api.Config) {
		c.Fleet = &fakeFleet{err: errors.New("broken")}
	}, http.MethodPost, nil, "/stats/reset?scope=fleet")
	ask(&store{}, func(c *api.Config) {
		c.Fleet = &fakeFleet{err: errors.New("broken")}
		c.Tiers = func() api.Tiers {
			return api.Tiers{Distributed: &api.DistributedTier{Unasked: 1, HotKeys: 1, RedisErrorsBy: map[string]uint64{"timeout": 1}, Garbage: 1,
				RedisServers: []api.RedisServer{{Address: "127.0.0.1:6379", State: "down", Since: 1697812345.678, Why: "timeout: no reply"}}}}
		}
	}, http.MethodGet, nil, "/stats", "/stats?scope=fleet")

	ask(&store{}, func(c *api.Config) { c.Metrics = exposition{} }, http.MethodGet, nil, "/metrics")
	ask(&store{}, func(c *api.Config) { c.Metrics = exposition{} }, http.MethodHead, nil, "/metrics")

	stopping := start(t, &store{}, nil)
	stopping.Drain()
	stopping.get(t, "/readyz")
	f := start(t, &store{}, nil)
	for _, path := range append(all, "/events") {
		sendLargeBody(t, f, http.MethodGet, path)
	}
	sendLargeBody(t, f, http.MethodPost, "/stats/reset")
	sendLargeBody(t, f, http.MethodPost, "/burst")

	expectEveryDocumentedStatusSeen(t)
}

func expectEveryDocumentedStatusSeen(t *testing.T) {
	t.Helper()
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range c.doc.Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				if answer := method + " " + path + " " + status; !c.seen[answer] {
					t.Errorf("%s is in the document and was not seen", answer)
				}
			}
		}
	}
}

// exposition responds as the Prometheus library's handler does.
type exposition struct{}

func (exposition) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
	_, _ = w.Write([]byte("up 1\n"))
}

// sendLargeBody sends a body that is larger than the limit.
func sendLargeBody(t *testing.T, f *fixture, method, path string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(strings.Repeat("x", 65<<10)))
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	a := response{w.Code, w.Header(), w.Body.String()}
	expectProblem(t, a, http.StatusRequestEntityTooLarge)
	expectDocumented(t, r, a)
}

func TestAnAnswerThatDriftsFromTheDocumentIsSeen(t *testing.T) {
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, &store{}, nil)
	r := httptest.NewRequest(http.MethodGet, "/product/normal/1", nil)
	right := f.get(t, "/product/normal/1")
	for name, change := range map[string]func(*response){
		"status":       func(a *response) { a.status = http.StatusTeapot },
		"content type": func(a *response) { a.header.Set("Content-Type", "text/plain") },
		"new header":   func(a *response) { a.header.Set("X-New", "1") },
		"no header":    func(a *response) { a.header.Del("X-Replica") },
		"bad header":   func(a *response) { a.header.Set("X-Coalesce-Role", "boss") },
		"new field":    func(a *response) { a.body = strings.Replace(a.body, `"price"`, `"cost":1,"price"`, 1) },
		"no field":     func(a *response) { a.body = strings.Replace(a.body, `"price"`, `"cost"`, 1) },
		"other type":   func(a *response) { a.body = strings.Replace(a.body, `"id":1`, `"id":"1"`, 1) },
	} {
		drifted := response{right.status, right.header.Clone(), right.body}
		change(&drifted)
		if c.check(r, drifted) == nil {
			t.Errorf("%s: not seen", name)
		}
	}
}

func TestDocsShowEveryOperationAndLoadNothingFromElsewhere(t *testing.T) {
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, &store{}, nil)
	a := f.get(t, "/docs")
	for path, item := range c.doc.Paths.Map() {
		for method, o := range item.Operations() {
			if !strings.Contains(a.body, ">"+method+"</span> <code>"+path+"</code>") || !strings.Contains(a.body, o.Summary) {
				t.Errorf("%s %s is not on the page", method, path)
			}
		}
	}
	for name := range c.doc.Components.Schemas {
		if !strings.Contains(a.body, `id="schema-`+name+`"`) {
			t.Errorf("schema %s is not on the page", name)
		}
	}
	for _, address := range []string{"http:", "https:", `="//`, "<script", "@import", "url("} {
		if strings.Contains(a.body, address) {
			t.Errorf("the page has %q", address)
		}
	}
	expectStylePolicy(t, a)
}

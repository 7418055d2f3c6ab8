package api

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// stylePolicy returns a Content-Security-Policy that allows the page's own style and
// nothing else.
func stylePolicy(style string) string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hash(style))
}

func hash(source string) string {
	sum := sha256.Sum256([]byte(source))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// Endpoint is one entry of the list that / returns.
type Endpoint struct {
	Method      string `json:"method"`
	Path        string `json:"path"`
	Description string `json:"description"`
	Example     string `json:"-"` // the address that the page links to
	products    bool   // a proxy has none
}

// Index is the body that / returns to programs.
type Index struct {
	Name      string     `json:"name"`
	Mode      string     `json:"mode"`
	Replica   string     `json:"replica"`
	Endpoints []Endpoint `json:"endpoints"`
}

// endpoints returns those that the Server has.
func (s *Server) endpoints() []Endpoint {
	all := slices.Clone(endpoints)
	if s.config.Upstream != nil {
		all = slices.DeleteFunc(all, func(e Endpoint) bool { return e.products })
	}
	return all
}

var endpoints = []Endpoint{
	{"GET", "/", "this list", "/", false},
	{"GET", "/health", "database or upstream, Redis, mode and replica; 503 without the former", "/health", false},
	{"GET", "/product/normal/{id}", "a product; every request runs its own query", "/product/normal/1", true},
	{"GET", "/product/coalesced/{id}", "a product; requests at the same time share one query", "/product/coalesced/1", true},
	{"GET", "/products", "up to 200 products; one query for those that nobody is fetching; ?ids=1,2,3", "/products?ids=1,2,3", true},
	{"GET", "/stats", "what coalescing saved on this replica; ?scope=fleet: on all", "/stats?scope=fleet", false},
	{"POST", "/stats/reset", "set the statistics of this replica to zero; ?scope=fleet: of all", "", false},
	{"GET", "/metrics", "metrics of this replica, for Prometheus; the balancer hides them", "/metrics", false},
	{"GET", "/events", "the whole fleet once a second, as server-sent events", "/events", false},
	{"POST", "/burst", "up to 1,000 requests for one product at once, on all replicas, and what became of each", "", true},
	{"GET", "/assets/{name}", "what the page is made of", "/assets/page.js", false},
	{"GET", "/livez", "200 while the process runs", "/livez", false},
	{"GET", "/readyz", "200 while requests are welcome, 503 while the database refuses and during shutdown", "/readyz", false},
	{"GET", "/docs", "this API, for people", "/docs", false},
	{"GET", "/openapi.json", "this API, as OpenAPI 3.1", "/openapi.json", false},
}

func (s *Server) index(c echo.Context) error {
	answer := Index{Name: "fleetcall", Mode: s.config.Mode, Replica: s.config.Replica, Endpoints: s.endpoints()}
	c.Response().Header().Set(echo.HeaderVary, echo.HeaderAccept)
	if !prefersHTML(c.Request().Header.Values(echo.HeaderAccept)) {
		return c.JSONPretty(http.StatusOK, answer, "  ")
	}
	return s.page(c, answer)
}

// prefersHTML reports whether the client is a browser. A browser names text/html in its
// Accept header and does not prefer JSON to it.
func prefersHTML(accept []string) bool {
	var html, json float64
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(item)
		if err != nil {
			continue
		}
		quality := 1.0
		if q, ok := params["q"]; ok {
			if quality, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		switch kind {
		case "text/html":
			html = max(html, quality)
		case "application/json":
			json = max(json, quality)
		}
	}
	return html > 0 && html >= json
}

package api

import (
	"bytes"
	_ "embed" // for the document and its page
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

var (
	//go:embed docs/openapi.json
	openAPI []byte
	//go:embed docs/docs.html
	docsSource string
	//go:embed docs/docs.css
	docsStyle string

	docsPage   = renderDocs()
	docsPolicy = pagePolicyOf(docsStyle) + "; img-src 'self'" // its icon
)

func (s *Server) openAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, openAPI)
}

func (s *Server) docs(c echo.Context) error {
	c.Response().Header().Set(contentSecurityPolicy, docsPolicy)
	return c.HTMLBlob(http.StatusOK, docsPage)
}

// document is what the page shows of an OpenAPI document.
type document struct {
	Info struct {
		Title       string
		Summary     string
		Description string
	}
	Tags []struct {
		Name        string
		Description string
	}
	Paths      map[string]map[string]operation
	Components struct {
		Schemas         map[string]schema
		Responses       map[string]response
		Headers         map[string]header
		SecuritySchemes map[string]struct{ Scheme, Description string }
	}
}

type operation struct {
	Method, Path string `json:"-"`
	OperationID  string
	Tags         []string
	Summary      string
	Description  string
	Parameters   []struct {
		Name, In, Description string
		Required              bool
		Schema                schema
	}
	RequestBody struct{ Content map[string]content }
	Responses   map[string]response
	Security    []map[string][]string
}

type response struct {
	Ref         string `json:"$ref"`
	Description string
	Headers     map[string]header
	Content     map[string]content
}

type content struct {
	Schema  schema
	Example json.RawMessage
}

type header struct {
	Ref         string `json:"$ref"`
	Description string
	Schema      schema
}

type schema struct {
	Ref              string `json:"$ref"`
	Type             string
	Description      string
	Enum             []string
	Const            string
	Items            *schema
	Minimum, Maximum *json.Number
	Required         []string
	Properties       map[string]schema
	Additional       *schema `json:"additionalProperties"`
}

// named returns the last part of a reference: the name of what it refers to.
func named(ref string) string { return path.Base(ref) }

// Words says what values the schema allows, without its reference.
func (s schema) Words() string {
	switch {
	case s.Const != "":
		return s.Const
	case len(s.Enum) > 0:
		return strings.Join(s.Enum, ", ")
	case s.Items != nil && s.Items.Ref == "":
		return "list of " + s.Items.Words()
	case s.Items != nil:
		return "list of "
	case s.Additional != nil:
		return "object of " + s.Additional.Words()
	case s.Minimum != nil && s.Maximum != nil:
		return fmt.Sprintf("%s, %s to %s", s.Type, *s.Minimum, *s.Maximum)
	case s.Minimum != nil:
		return fmt.Sprintf("%s, at least %s", s.Type, *s.Minimum)
	}
	return s.Type
}

// Target returns the name of the schema that this one, or its items, refer to;
// empty: none.
func (s schema) Target() string {
	switch {
	case s.Ref != "":
		return named(s.Ref)
	case s.Items != nil && s.Items.Ref != "":
		return named(s.Items.Ref)
	}
	return ""
}

// Names returns the properties: the required ones as the document orders them,
// and then the others.
func (s schema) Names() []string {
	names := slices.Clone(s.Required)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Optional tells whether a property may be absent.
func (s schema) Optional(name string) bool { return !slices.Contains(s.Required, name) }

// Of returns the operations of a tag by their paths.
func (d *document) Of(tag string) []operation {
	var found []operation
	for _, p := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[p])) {
			o := d.Paths[p][method]
			if slices.Contains(o.Tags, tag) {
				o.Method, o.Path = strings.ToUpper(method), p
				found = append(found, o)
			}
		}
	}
	return found
}

// Response follows a reference.
func (d *document) Response(r response) response {
	if r.Ref != "" {
		return d.Components.Responses[named(r.Ref)]
	}
	return r
}

// Header follows a reference.
func (d *document) Header(h header) header {
	if h.Ref != "" {
		return d.Components.Headers[named(h.Ref)]
	}
	return h
}

// Indented returns an example as the page shows it.
func (*document) Indented(example json.RawMessage) (string, error) {
	var b bytes.Buffer
	err := json.Indent(&b, example, "", "  ")
	return b.String(), err
}

// Compact returns an example on one line.
func (*document) Compact(example json.RawMessage) (string, error) {
	var b bytes.Buffer
	err := json.Compact(&b, example)
	return b.String(), err
}

// renderDocs makes the page. What it is made of is embedded: it cannot fail on
// one start and not on another.
func renderDocs() []byte {
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		panic(fmt.Sprintf("fleetcall: reading openapi.json: %v", err))
	}
	var html bytes.Buffer
	err := template.Must(template.New("docs").Parse(docsSource)).Execute(&html, struct {
		*document
		Style template.CSS
	}{&d, template.CSS(docsStyle)}) //nolint:gosec // embedded, not a user's
	if err != nil {
		panic(fmt.Sprintf("fleetcall: rendering /docs: %v", err))
	}
	return html.Bytes()
}

package api

import (
	"bytes"
	_ "embed" // for the go:embed directives below
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
	docsPolicy = stylePolicy(docsStyle) + "; img-src 'self'" // the page's icon
)

func (s *Server) openAPI(c echo.Context) error {
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, openAPI)
}

func (s *Server) docs(c echo.Context) error {
	c.Response().Header().Set(contentSecurityPolicy, docsPolicy)
	return c.HTMLBlob(http.StatusOK, docsPage)
}

// document holds those parts of an OpenAPI document that the page shows.
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

// named returns the name at the end of a reference such as #/components/schemas/Stats.
func named(ref string) string { return path.Base(ref) }

// Words describes the values that the schema allows. For a schema that is only a
// reference it returns nothing, or "list of ": the page adds a link to the Target.
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

// Target returns the name of the schema that this schema or its items refer to, or the
// empty string.
func (s schema) Target() string {
	switch {
	case s.Ref != "":
		return named(s.Ref)
	case s.Items != nil && s.Items.Ref != "":
		return named(s.Items.Ref)
	}
	return ""
}

// Names returns the names of the properties: first the required ones in the order of
// the document, then the others sorted by name.
func (s schema) Names() []string {
	names := slices.Clone(s.Required)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Optional reports whether a property may be absent.
func (s schema) Optional(name string) bool { return !slices.Contains(s.Required, name) }

// Of returns the operations that carry a tag, sorted by path.
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

// Response returns the response that r refers to, or r itself.
func (d *document) Response(r response) response {
	if r.Ref != "" {
		return d.Components.Responses[named(r.Ref)]
	}
	return r
}

// Header returns the header that h refers to, or h itself.
func (d *document) Header(h header) header {
	if h.Ref != "" {
		return d.Components.Headers[named(h.Ref)]
	}
	return h
}

// Indented returns an example on several lines.
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

// renderDocs renders the page of /docs. It panics on an error, because all its input is
// embedded: if it works in the tests, it works everywhere.
func renderDocs() []byte {
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		panic(fmt.Sprintf("fleetcall: reading openapi.json: %v", err))
	}
	var html bytes.Buffer
	err := template.Must(template.New("docs").Parse(docsSource)).Execute(&html, struct {
		*document
		Style template.CSS
	}{&d, template.CSS(docsStyle)}) //nolint:gosec // the style is embedded and holds nothing that a user wrote
	if err != nil {
		panic(fmt.Sprintf("fleetcall: rendering /docs: %v", err))
	}
	return html.Bytes()
}

package httpproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"golang.org/x/net/http/httpguts"

	"github.com/fleetcall/fleetcall/internal/spelling"
)

// fileConfig is the configuration file of a proxy.
type fileConfig struct {
	Rules []fileRule `yaml:"rules"`
}

// fileRule is a rule as the file has it.
type fileRule struct {
	Path            string        `yaml:"path"`
	Coalesce        *bool         `yaml:"coalesce"`
	QueryParameters *[]string     `yaml:"query_parameters"`
	SortQuery       bool          `yaml:"sort_query"`
	Fields          []string      `yaml:"fields"`
	Identity        *fileIdentity `yaml:"identity"`
	Cookies         bool          `yaml:"cookies"`
	BodyLimit       *bytesSize    `yaml:"body_limit"`
	BodyTimeout     *fileTime     `yaml:"body_timeout"`
	UpstreamTimeout *fileTime     `yaml:"upstream_timeout"`
	FlightTimeout   *fileTime     `yaml:"flight_timeout"`
	Remember        *fileTime     `yaml:"remember"`
}

// fileIdentity says where a request has the identity of its caller.
type fileIdentity struct {
	Field  string `yaml:"field"`
	Cookie string `yaml:"cookie"`
}

// ReadRules reads the rules of a configuration file. An error names the file and the line.
func ReadRules(file string) ([]Rule, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: reading the proxy's configuration: %w", err)
	}
	return parseRules(file, text)
}

// parseRules reads rules. The name of the file is for its errors.
func parseRules(file string, text []byte) ([]Rule, error) {
	tree, err := parser.ParseBytes(text, 0)
	var config fileConfig
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&config)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, located(file, err)
	}
	if len(tree.Docs) > 1 {
		return nil, fmt.Errorf("fleetcall: %s:%d: a second document begins; all rules stand in one", file, tree.Docs[1].Start.Position.Line)
	}
	rules := make([]Rule, 0, len(config.Rules))
	for i, from := range config.Rules {
		rule, key, err := from.rule()
		if err != nil {
			return nil, fmt.Errorf("fleetcall: %s:%d: rule %d: %w", file, lineOf(tree, i, key), i+1, err)
		}
		for j, earlier := range rules {
			if newPattern(earlier.Path).covers(newPattern(rule.Path)) {
				return nil, fmt.Errorf("fleetcall: %s:%d: rule %d: path: %q never holds, because the first rule that matches does, and rule %d for %q matches all of it; put this rule before that one",
					file, lineOf(tree, i, "path"), i+1, rule.Path, j+1, earlier.Path)
			}
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// rule checks a rule. With an error it returns the key that is wrong.
func (f *fileRule) rule() (rule Rule, key string, err error) {
	rule = Rule{
		Path: f.Path, Alone: f.Coalesce != nil && !*f.Coalesce, SortQuery: f.SortQuery, Fields: f.Fields, Cookies: f.Cookies,
	}
	if err := checkPath(f.Path); err != nil {
		return rule, "path", err
	}
	if f.QueryParameters != nil {
		rule.QueryParameters = append([]string{}, *f.QueryParameters...)
	}
	for _, name := range f.Fields {
		if !httpguts.ValidHeaderFieldName(name) {
			return rule, "fields", fmt.Errorf("fields: %q is no name of a header field", name)
		}
	}
	if f.Identity != nil {
		rule.IdentityField, rule.IdentityCookie = f.Identity.Field, f.Identity.Cookie
		switch {
		case (rule.IdentityField == "") == (rule.IdentityCookie == ""):
			return rule, "identity", errors.New("identity: give either the name of a field or that of a cookie, as in identity: {field: Authorization}")
		case !httpguts.ValidHeaderFieldName(rule.IdentityField + rule.IdentityCookie):
			return rule, "identity", fmt.Errorf("identity: %q is no name of a header field or cookie", rule.IdentityField+rule.IdentityCookie)
		}
	}
	if f.BodyLimit != nil {
		if rule.BodyLimit = int(*f.BodyLimit); rule.BodyLimit < 1 {
			return rule, "body_limit", errors.New("body_limit: it must be at least 1; to share nothing, say coalesce: false")
		}
	}
	for _, d := range []struct {
		key  string
		from *fileTime
		to   *time.Duration
	}{
		{"body_timeout", f.BodyTimeout, &rule.BodyTimeout},
		{"upstream_timeout", f.UpstreamTimeout, &rule.UpstreamTimeout},
		{"flight_timeout", f.FlightTimeout, &rule.FlightTimeout},
		{"remember", f.Remember, &rule.Remember},
	} {
		if d.from == nil {
			continue
		}
		if *d.to = time.Duration(*d.from); *d.to < time.Millisecond {
			return rule, d.key, fmt.Errorf("%s: %v is less than 1ms", d.key, *d.to)
		}
	}
	if rule.Alone {
		if key := f.useless(); key != "" {
			return rule, key, fmt.Errorf("%s: it has no effect, because coalesce is false", key)
		}
	}
	return rule, "", nil
}

// useless returns a key that says how requests are merged, in a rule that merges none.
func (f *fileRule) useless() string {
	switch {
	case f.QueryParameters != nil:
		return "query_parameters"
	case f.SortQuery:
		return "sort_query"
	case f.Fields != nil:
		return "fields"
	case f.Identity != nil:
		return "identity"
	case f.Cookies:
		return "cookies"
	case f.BodyLimit != nil:
		return "body_limit"
	case f.BodyTimeout != nil:
		return "body_timeout"
	case f.FlightTimeout != nil:
		return "flight_timeout"
	case f.Remember != nil:
		return "remember"
	}
	return ""
}

func checkPath(path string) error {
	const ways = "say it as in /products/* or /static/**, where * is any one segment and ** at the end is all that follows"
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("path: %q does not begin with /; %s", path, ways)
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == "." || s == ".." || s == "" && !last:
			return fmt.Errorf("path: %q has an empty segment, . or .., which no path has when rules are asked; %s", path, ways)
		case s == "**" && !last, strings.Contains(s, "*") && s != "*" && s != "**", strings.ContainsAny(s, "?#"):
			return fmt.Errorf("path: %q has a *, ? or # that is no segment's place-holder; %s", path, ways)
		}
	}
	return nil
}

// located returns an error of the file with the line where it is, and with what may be said
// there instead.
func located(file string, err error) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("fleetcall: %s: %w", file, err)
	}
	message := at.GetMessage()
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		message = unknownKey(unknown.GetToken().Value)
	}
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		message = fmt.Sprintf("%q is not %s", wrong.GetToken().Value, kindOf(wrong.DstType))
	}
	if wrong, ok := errors.AsType[*yaml.UnexpectedNodeTypeError](err); ok {
		message = fmt.Sprintf("here is %s where %s must be", nodeName(wrong.Actual), nodeName(wrong.Expected))
	}
	return fmt.Errorf("fleetcall: %s:%d: %s", file, at.GetToken().Position.Line, message)
}

func unknownKey(key string) string {
	keys := map[string][]string{}
	for name, of := range map[string]reflect.Type{
		"the file": reflect.TypeFor[fileConfig](), "a rule": reflect.TypeFor[fileRule](), "an identity": reflect.TypeFor[fileIdentity](),
	} {
		for field := range of.Fields() {
			keys[name] = append(keys[name], field.Tag.Get("yaml"))
		}
	}
	sentence := fmt.Sprintf("there is no key %q", key)
	var all []string
	for _, names := range keys {
		all = append(all, names...)
	}
	if near := spelling.Nearest(key, all); near != "" {
		sentence += "; did you mean " + near + "?"
	} else {
		sentence += "."
	}
	return fmt.Sprintf("%s The file has %s; a rule has %s; an identity has %s", sentence,
		strings.Join(keys["the file"], ", "), strings.Join(keys["a rule"], ", "), strings.Join(keys["an identity"], " or "))
}

// nodeName says in words what stands in the file.
func nodeName(t ast.NodeType) string {
	switch t {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping of keys to values"
	case ast.SequenceType:
		return "a list"
	}
	return "a " + strings.ToLower(t.String())
}

// kindOf says in words what a setting must be.
func kindOf(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct:
		return "a mapping of keys to values"
	}
	return "a " + t.Kind().String()
}

// lineOf returns the line of a key of a rule, or where the rule begins.
func lineOf(tree *ast.File, rule int, key string) int {
	for _, at := range []string{fmt.Sprintf("$.rules[%d].%s", rule, key), fmt.Sprintf("$.rules[%d]", rule)} {
		path, err := yaml.PathString(at)
		if err != nil {
			continue
		}
		if node, err := path.FilterFile(tree); err == nil && node != nil {
			return node.GetToken().Position.Line
		}
	}
	return 1
}

// fileTime is a time such as 500ms or 30s.
type fileTime time.Duration

// UnmarshalYAML reads a time.
func (f *fileTime) UnmarshalYAML(node ast.Node) error {
	d, err := time.ParseDuration(node.GetToken().Value)
	if err != nil {
		return &yaml.SyntaxError{Token: node.GetToken(), Message: fmt.Sprintf("%q is no time such as 500ms or 30s", node.GetToken().Value)}
	}
	*f = fileTime(d)
	return nil
}

// bytesSize is a number of bytes, such as 65536, 64KiB or 1MiB.
type bytesSize int

// UnmarshalYAML reads a size.
func (s *bytesSize) UnmarshalYAML(node ast.Node) error {
	number, factor := node.GetToken().Value, 1
	for unit, n := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, factor = strings.TrimSpace(rest), n
		}
	}
	n, err := strconv.ParseInt(number, 10, 31)
	if err != nil || n*int64(factor) > 1<<30 {
		return &yaml.SyntaxError{Token: node.GetToken(), Message: fmt.Sprintf("%q is no number of bytes up to 1024MiB, such as 65536, 64KiB or 1MiB", node.GetToken().Value)}
	}
	*s = bytesSize(n * int64(factor))
	return nil
}

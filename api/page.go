package api

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"

	"github.com/labstack/echo/v4"
)

var (
	//go:embed page/index.html
	pageSource string
	//go:embed page/assets
	pageFiles embed.FS

	pageTemplate = template.Must(template.New("index").Parse(pageSource))
	assets       = readAssets()
)

// pagePolicy allows the page scripts, styles, images and connections of this server
// alone. Scripts and styles must be files: none may stand in the page itself.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is a file that the page loads.
type asset struct {
	kind string // its media type
	body []byte
}

// readAssets reads the embedded files. It panics on an error, because what is embedded
// is the same everywhere: if it works in the tests, it works on every start.
func readAssets() map[string]asset {
	all := map[string]asset{}
	err := fs.WalkDir(pageFiles, "page/assets", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := pageFiles.ReadFile(file)
		// Package mime would ask the system's table, which differs between machines.
		kind := map[string]string{
			".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
		}[path.Ext(file)]
		if kind == "" {
			return fmt.Errorf("%s: no media type", file)
		}
		all[path.Base(file)] = asset{kind, body}
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("fleetcall: reading the page's files: %v", err))
	}
	return all
}

// page renders the page together with the settings of this replica that it needs.
func (s *Server) page(c echo.Context, index Index) error {
	var html bytes.Buffer
	err := pageTemplate.Execute(&html, struct {
		Index
		Upstream    bool // in place of products
		TokenWanted bool
		MaxBurst    int
	}{index, s.config.Upstream != nil, s.config.AdminToken != "", maxBurst})
	if err != nil {
		return fmt.Errorf("fleetcall: rendering the page: %w", err)
	}
	c.Response().Header().Set(contentSecurityPolicy, pagePolicy)
	return c.HTMLBlob(http.StatusOK, html.Bytes())
}

func (s *Server) asset(c echo.Context) error {
	a, ok := assets[c.Param("name")]
	if !ok {
		return echo.ErrNotFound
	}
	return c.Blob(http.StatusOK, a.kind, a.body)
}

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

// pagePolicy lets a browser run and use what this server sends and nothing else:
// no script or style in the page itself, no other address.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is a file that the page is made of.
type asset struct {
	kind string // its media type
	body []byte
}

// readAssets reads what is embedded: it cannot fail on one start and not on
// another.
func readAssets() map[string]asset {
	all := map[string]asset{}
	err := fs.WalkDir(pageFiles, "page/assets", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := pageFiles.ReadFile(file)
		// The system's own table of media types may say anything of .js.
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

// page sends the page, with what does not change while the replica runs.
func (s *Server) page(c echo.Context, index Index) error {
	var html bytes.Buffer
	err := pageTemplate.Execute(&html, struct {
		Index
		TokenWanted bool
		MaxBurst    int
	}{index, s.config.AdminToken != "", maxBurst})
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

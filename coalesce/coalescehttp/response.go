package coalescehttp

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
)

// roleAlone is the role of a request that was not merged.
const roleAlone = "alone"

// sign says in the header of an answer what became of its request.
func sign(header http.Header, d Decision) {
	header.Set(RoleHeader, d.Role)
	if d.Flight == "" {
		header.Del(FlightHeader)
	} else {
		header.Set(FlightHeader, d.Flight)
	}
}

// response returns an answer of another's flight as r's own.
func (a *Answer) response(r *http.Request, d Decision) *http.Response {
	resp := &http.Response{
		Status:     strconv.Itoa(a.Status) + " " + http.StatusText(a.Status),
		StatusCode: a.Status,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        copyOf(a.Header),
		Body:          http.NoBody,
		ContentLength: int64(len(a.Body)),
		Request:       r,
	}
	sign(resp.Header, d)
	switch {
	case r.Method == http.MethodHead:
		resp.ContentLength = declaredLength(a.Header)
	case len(a.Body) > 0:
		resp.Body = bytesBody{bytes.NewReader(a.Body)}
	}
	return resp
}

// copyOf is Header.Clone that never returns nil.
func copyOf(header http.Header) http.Header {
	if header == nil {
		return http.Header{}
	}
	return header.Clone()
}

// bytesBody is a body that is here as a whole. Those who share it must not change it.
type bytesBody struct{ *bytes.Reader }

// Close makes bytesBody an io.Closer.
func (bytesBody) Close() error { return nil }

var _ io.WriterTo = bytesBody{}

// declaredLength returns the length that Content-Length says, or -1.
func declaredLength(header http.Header) int64 {
	if len(header["Content-Length"]) > 0 {
		if n, err := strconv.ParseInt(header["Content-Length"][0], 10, 64); err == nil && n >= 0 {
			return n
		}
	}
	return -1
}

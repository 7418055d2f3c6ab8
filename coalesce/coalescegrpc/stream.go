package coalescegrpc

import (
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// stream is the grpc.ServerTransportStream that a handler sees: it keeps the metadata that
// the handler sets, because the handler works for all who share its call, and its first
// caller may have left.
type stream struct {
	method string

	mu              sync.Mutex
	sent            bool
	header, trailer metadata.MD
}

var errSent = status.Error(codes.Internal, "fleetcall: coalescegrpc: the header has been sent")

// Method makes stream a grpc.ServerTransportStream.
func (s *stream) Method() string { return s.method }

// SetHeader makes stream a grpc.ServerTransportStream.
func (s *stream) SetHeader(md metadata.MD) error { return s.setHeader(md, false) }

// SendHeader makes stream a grpc.ServerTransportStream. The header goes out with the answer.
func (s *stream) SendHeader(md metadata.MD) error { return s.setHeader(md, true) }

func (s *stream) setHeader(md metadata.MD, send bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent {
		return errSent
	}
	s.sent = send
	if len(md) > 0 {
		s.header = metadata.Join(s.header, md)
	}
	return nil
}

// SetTrailer makes stream a grpc.ServerTransportStream.
func (s *stream) SetTrailer(md metadata.MD) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(md) > 0 {
		s.trailer = metadata.Join(s.trailer, md)
	}
	return nil
}

// end returns what has been set. What is set later is lost.
func (s *stream) end() (header, trailer metadata.MD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	header, trailer = s.header, s.trailer
	s.header, s.trailer = nil, nil
	return header, trailer
}

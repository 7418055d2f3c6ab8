package coalescehttp

import "github.com/fleetcall/fleetcall/coalesce"

// RoleHeader is the field that Transport and Middleware add to every answer. Its
// value is a coalesce.Role, or "alone" for a request that was not merged.
const RoleHeader = "X-Coalesce-Role"

// FlightHeader is the field with the id of the flight that an answer is from: the
// same for all who share it.
const FlightHeader = "X-Coalesce-Flight"

// Group is the tier that carries answers: local.Tier, a distributed.Group with
// Codec, or coalesce.Off. A Transport and a Middleware of one program need one each, of
// different names: a handler whose own request had its key would wait for itself.
type Group = coalesce.Group[*Answer]

package shadow

// hashSeed is the offset of FNV-1a.
const hashSeed = 14695981039346656037

// hashString goes on with a hash, which is the same on every replica: FNV-1a, and the
// finalizer of splitmix64, because the first bits of FNV-1a alone are not spread evenly.
func hashString(seed uint64, text string) uint64 {
	h := seed
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

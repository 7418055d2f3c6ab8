package product

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// CatalogueSize is the number of products in the Catalogue.
const CatalogueSize = 1000

// Catalogue returns the products with which every database is filled. Their ids are 1
// to CatalogueSize. The products are the same in every call and in every release.
func Catalogue() []Product {
	products := make([]Product, 0, CatalogueSize)
	products = append(products, Product{
		ID:          1,
		Name:        "MacBook Pro 16-inch",
		Price:       2499.99,
		Description: "Powerful laptop with M3 Pro chip",
	})
	for id := int32(2); id <= CatalogueSize; id++ {
		products = append(products, generate(id))
	}
	return products
}

// batchSize is the number of products that Batches passes on at a time.
const batchSize = 100

// Batches calls write for one batch of the catalogue after the other. It stops at the
// first error and returns it. After each batch it calls progress, unless that is nil.
func Batches(write func(batch []Product) error, progress func(done, total int)) error {
	done, all := 0, Catalogue()
	for batch := range slices.Chunk(all, batchSize) {
		if err := write(batch); err != nil {
			return fmt.Errorf("fleetcall: writing the products from %d on: %w", batch[0].ID, err)
		}
		done += len(batch)
		if progress != nil {
			progress(done, len(all))
		}
	}
	return nil
}

type kind struct {
	name      string
	variants  []string
	traits    []string
	low, high float64
}

var (
	brands = []string{
		"Alderwood", "Brightline", "Cobalt", "Dunmore", "Everfield", "Fjordal", "Granite", "Halcyon",
		"Ironbridge", "Juniper", "Kestrel", "Lumen", "Meridian", "Northway", "Orbit", "Pinecrest",
	}
	kinds = []kind{
		{"laptop", []string{"13-inch", "14-inch", "15-inch", "16-inch"}, []string{"all-day battery", "a bright matte display", "a quiet fan", "two Thunderbolt ports"}, 649, 2899},
		{"monitor", []string{"24-inch", "27-inch", "32-inch", "34-inch"}, []string{"4K resolution", "a height-adjustable stand", "USB-C charging", "accurate colours"}, 149, 1299},
		{"keyboard", []string{"compact", "full-size", "low-profile", "split"}, []string{"hot-swappable switches", "white backlight", "a steel plate", "Bluetooth for three devices"}, 39, 249},
		{"mouse", []string{"wireless", "vertical", "travel", "trackball"}, []string{"a silent click", "a rechargeable battery", "six buttons", "a free-spinning wheel"}, 19, 129},
		{"headphones", []string{"over-ear", "on-ear", "in-ear", "open-back"}, []string{"active noise cancelling", "40 hours of playback", "a detachable cable", "soft ear pads"}, 29, 449},
		{"camera", []string{"mirrorless", "compact", "action", "instant"}, []string{"in-body stabilisation", "4K video", "a flip-out screen", "weather sealing"}, 89, 1999},
		{"backpack", []string{"18-litre", "22-litre", "28-litre", "35-litre"}, []string{"a padded laptop sleeve", "recycled fabric", "a roll top", "a hidden pocket"}, 39, 219},
		{"desk lamp", []string{"clamp-on", "dimmable", "folding", "architect"}, []string{"warm and cold light", "a touch switch", "a weighted base", "flicker-free LEDs"}, 24, 189},
		{"office chair", []string{"mesh", "upholstered", "high-back", "task"}, []string{"lumbar support", "adjustable armrests", "a tilt lock", "castors for hard floors"}, 119, 899},
		{"espresso machine", []string{"manual", "single-boiler", "dual-boiler", "bean-to-cup"}, []string{"a steam wand", "a pressure gauge", "a fast warm-up", "a removable tank"}, 99, 1699},
		{"speaker", []string{"bookshelf", "portable", "ceiling", "shelf"}, []string{"stereo pairing", "a waterproof case", "deep bass", "an optical input"}, 34, 799},
		{"external drive", []string{"1 TB", "2 TB", "4 TB", "8 TB"}, []string{"USB 3.2 transfer", "a shock-proof shell", "hardware encryption", "a short cable included"}, 49, 429},
	}
)

// generate makes a product from its id alone.
func generate(id int32) Product {
	r := rand.New(rand.NewPCG(uint64(id), 0))
	brand := brands[r.IntN(len(brands))]
	k := kinds[r.IntN(len(kinds))]
	variant := k.variants[r.IntN(len(k.variants))]
	first := r.IntN(len(k.traits))
	second := (first + 1 + r.IntN(len(k.traits)-1)) % len(k.traits)
	// The square makes cheap products more common than expensive ones.
	share := r.Float64()
	whole := math.Floor(k.low + (k.high-k.low)*share*share)
	price := math.Round((whole+[]float64{0, 0.49, 0.95, 0.99}[r.IntN(4)])*100) / 100
	return Product{
		ID:          id,
		Name:        fmt.Sprintf("%s %s %s %c%d", brand, variant, k.name, 'A'+rune(r.IntN(26)), id),
		Price:       price,
		Description: fmt.Sprintf("A %s %s with %s and %s", variant, k.name, k.traits[first], k.traits[second]),
	}
}

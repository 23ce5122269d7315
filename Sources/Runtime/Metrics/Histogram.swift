import Synchronization

/// A distribution of durations from 1 µs to over an hour, with at most 6 % error at any quantile.
///
/// Buckets are log-linear: 16 between each power of two of microseconds, so that recording is a shift and one atomic
/// increment, and the bounds that Prometheus sees (powers of two) are exact sums of whole buckets.
public final class Histogram: Sendable {
    static let subBits = 4
    static let octaves = 32
    static let bucketCount = octaves << subBits

    private let counts: [Counter]
    private let sumNs = Atomic<UInt64>(0)

    public init() {
        counts = (0..<Self.bucketCount).map { _ in Counter() }
    }

    @inline(__always)
    public func record(ns: UInt64, count: Int = 1) {
        counts[Self.bucket(ofUs: ns / 1000)].add(count)
        sumNs.wrappingAdd(ns &* UInt64(truncatingIfNeeded: count), ordering: .relaxed)
    }

    /// Values below 16 have a bucket each; above, the four bits after the leading one choose it.
    static func bucket(ofUs value: UInt64) -> Int {
        guard value >= 1 << UInt64(subBits) else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let sub = Int(truncatingIfNeeded: value >> UInt64(exponent - subBits)) & (1 << subBits - 1)
        return min((exponent - subBits + 1) << subBits + sub, bucketCount - 1)
    }

    /// The first value that no longer belongs to the bucket, in microseconds.
    static func upperBoundUs(ofBucket bucket: Int) -> UInt64 {
        guard bucket >= 1 << subBits else { return UInt64(bucket) + 1 }
        let exponent = bucket >> subBits - 1
        let sub = bucket & (1 << subBits - 1)
        return UInt64(1 << subBits + sub + 1) << UInt64(exponent)
    }

    public func snapshot() -> Snapshot {
        Snapshot(counts: counts.map(\.value), sumNs: sumNs.load(ordering: .relaxed))
    }

    /// The counts at one moment: what quantiles and differences are computed on.
    public struct Snapshot: Sendable {
        public private(set) var counts: [UInt64]
        public private(set) var sumNs: UInt64

        public var total: UInt64 { counts.reduce(0, +) }
        public var meanUs: Double { total == 0 ? 0 : Double(sumNs) / Double(total) / 1000 }

        /// The duration below which this share of the values lies (`0...1`), in microseconds; 0 when there are none.
        public func quantileUs(_ share: Double) -> Double {
            let total = total
            guard total > 0 else { return 0 }
            let rank = max(1, UInt64((share * Double(total)).rounded(.up)))
            var seen: UInt64 = 0
            for (bucket, count) in counts.enumerated() where count > 0 {
                seen += count
                if seen >= rank { return Double(Histogram.upperBoundUs(ofBucket: bucket)) }
            }
            return 0
        }

        /// What has been recorded since an earlier snapshot.
        public func since(_ earlier: Snapshot) -> Snapshot {
            var difference = self
            for index in counts.indices { difference.counts[index] &-= earlier.counts[index] }
            difference.sumNs &-= earlier.sumNs
            return difference
        }

        public mutating func add(_ other: Snapshot) {
            for index in counts.indices { counts[index] &+= other.counts[index] }
            sumNs &+= other.sumNs
        }

        /// Cumulative buckets from 64 µs to 67 s, each a power of two of microseconds.
        func append(_ name: String, _ labels: String, to text: inout [UInt8]) {
            let separator = labels.isEmpty ? "" : ","
            var cumulative: UInt64 = 0
            var bucket = 0
            for exponent in 6...26 {
                while bucket < counts.count, Histogram.upperBoundUs(ofBucket: bucket) <= 1 << UInt64(exponent) {
                    cumulative += counts[bucket]
                    bucket += 1
                }
                let bound = Double(1 << exponent) / 1e6
                Metrics.append("\(name)_bucket", "\(labels)\(separator)le=\"\(bound)\"", "\(cumulative)", to: &text)
            }
            let total = total
            Metrics.append("\(name)_bucket", "\(labels)\(separator)le=\"+Inf\"", "\(total)", to: &text)
            Metrics.append("\(name)_sum", labels, "\(Double(sumNs) / 1e9)", to: &text)
            Metrics.append("\(name)_count", labels, "\(total)", to: &text)
        }
    }
}

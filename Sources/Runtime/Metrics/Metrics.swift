import Synchronization

/// The process's metrics, and their Prometheus text.
///
/// A metric is registered once at start and then updated through the object it returned, with one atomic operation and
/// no look-up. Label sets are given at registration, so they are as bounded as the code that registers them.
public final class Metrics: Sendable {
    public typealias Labels = KeyValuePairs<String, String>

    private enum Sample: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)
        case computed(@Sendable () -> Double)
    }

    private struct Family: Sendable {
        let name: String
        let help: String
        let type: String
        var samples: [(labels: String, sample: Sample)] = []
        var known: Set<String> = []
    }

    private struct Families: Sendable {
        /// In the order of registration.
        var list: [Family] = []
        var places: [String: Int] = [:]
    }

    private let families = Mutex(Families())

    public init() {}

    public func counter(_ name: String, _ help: String, _ labels: Labels = [:]) -> Counter {
        let counter = Counter()
        add(name, help, "counter", labels, .counter(counter))
        return counter
    }

    public func gauge(_ name: String, _ help: String, _ labels: Labels = [:]) -> Gauge {
        let gauge = Gauge()
        add(name, help, "gauge", labels, .gauge(gauge))
        return gauge
    }

    /// A distribution of durations. Recorded in nanoseconds, exposed in seconds: name it `…_seconds`.
    public func histogram(_ name: String, _ help: String, _ labels: Labels = [:]) -> Histogram {
        let histogram = Histogram()
        add(name, help, "histogram", labels, .histogram(histogram))
        return histogram
    }

    /// A gauge whose value is asked for when it is scraped.
    public func gauge(_ name: String, _ help: String, _ labels: Labels = [:], read: @escaping @Sendable () -> Double) {
        add(name, help, "gauge", labels, .computed(read))
    }

    /// A counter that something else counts.
    public func counter(_ name: String, _ help: String, _ labels: Labels = [:], read: @escaping @Sendable () -> Double)
    {
        add(name, help, "counter", labels, .computed(read))
    }

    private func add(_ name: String, _ help: String, _ type: String, _ labels: Labels, _ sample: Sample) {
        precondition(Self.isValidName(name), "metric name \(name)")
        let rendered = Self.render(labels)
        families.withLock { families in
            let place = families.places[name] ?? families.list.count
            if place == families.list.count {
                families.places[name] = place
                families.list.append(Family(name: name, help: help, type: type))
            }
            precondition(families.list[place].type == type, "\(name) is registered as another type")
            let isNew = families.list[place].known.insert(rendered).inserted
            precondition(isNew, "\(name){\(rendered)} exists already")
            families.list[place].samples.append((rendered, sample))
        }
    }

    /// The text exposition format, version 0.0.4.
    public func render() -> [UInt8] {
        // Computed gauges may take locks of their own: they are asked outside of ours.
        let families = families.withLock { $0.list }
        var text: [UInt8] = []
        for family in families {
            text += "# HELP \(family.name) \(Self.escapeHelp(family.help))\n# TYPE \(family.name) \(family.type)\n".utf8
            for (labels, sample) in family.samples {
                switch sample {
                case .counter(let counter): Self.append(family.name, labels, "\(counter.value)", to: &text)
                case .gauge(let gauge): Self.append(family.name, labels, "\(gauge.value)", to: &text)
                case .computed(let read): Self.append(family.name, labels, Self.render(read()), to: &text)
                case .histogram(let histogram): histogram.snapshot().append(family.name, labels, to: &text)
                }
            }
        }
        return text
    }

    static func append(_ name: String, _ labels: String, _ value: String, to text: inout [UInt8]) {
        text += (labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels)} \(value)\n").utf8
    }

    static func render(_ number: Double) -> String {
        if number.isNaN { return "NaN" }
        if number.isInfinite { return number < 0 ? "-Inf" : "+Inf" }
        return number == number.rounded() && number.magnitude < 1e15 ? "\(Int64(number))" : "\(number)"
    }

    private static func render(_ labels: Labels) -> String {
        labels.map { name, value in
            precondition(isValidName(name), "label name \(name)")
            return "\(name)=\"\(escapeLabel(value))\""
        }.joined(separator: ",")
    }

    private static func escapeLabel(_ text: String) -> String { escape(text, quotes: true) }

    private static func escapeHelp(_ text: String) -> String { escape(text, quotes: false) }

    /// Scalar by scalar: as a `Character`, a quote with a combining mark is no quote, and CR LF no LF.
    private static func escape(_ text: String, quotes: Bool) -> String {
        var escaped = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped.append(contentsOf: "\\\\".unicodeScalars)
            case "\"" where quotes: escaped.append(contentsOf: "\\\"".unicodeScalars)
            case "\n": escaped.append(contentsOf: "\\n".unicodeScalars)
            default: escaped.append(scalar)
            }
        }
        return String(escaped)
    }

    private static func isValidName(_ name: String) -> Bool {
        guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return name.utf8.allSatisfy {
            (0x61...0x7a).contains($0) || (0x41...0x5a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5f
        }
    }
}

/// A number that only grows.
public final class Counter: Sendable {
    private let count = Atomic<UInt64>(0)

    public init() {}

    public func add(_ amount: Int = 1) {
        count.wrappingAdd(UInt64(truncatingIfNeeded: amount), ordering: .relaxed)
    }
    public var value: UInt64 { count.load(ordering: .relaxed) }
}

/// A number that goes up and down.
public final class Gauge: Sendable {
    private let number = Atomic<Int64>(0)

    public init() {}

    public func set(_ value: Int) { number.store(Int64(value), ordering: .relaxed) }
    public func add(_ amount: Int) { number.wrappingAdd(Int64(amount), ordering: .relaxed) }
    public var value: Int64 { number.load(ordering: .relaxed) }
}

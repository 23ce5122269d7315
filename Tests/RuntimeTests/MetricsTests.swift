import Runtime
import Testing

@Suite struct MetricsTests {
    @Test func `the text form has help, type, labels and escapes`() {
        let metrics = Metrics()
        metrics.counter("sent_total", "Messages sent.", ["topic": "a\"b\\c\nd"]).add(3)
        metrics.counter("sent_total", "Messages sent.", ["topic": "x"]).add(1)
        metrics.gauge("depth", "How deep\nit is.").set(-4)
        metrics.gauge("load", "Computed.") { 0.5 }
        #expect(
            String(decoding: metrics.render(), as: UTF8.self) == #"""
                # HELP sent_total Messages sent.
                # TYPE sent_total counter
                sent_total{topic="a\"b\\c\nd"} 3
                sent_total{topic="x"} 1
                # HELP depth How deep\nit is.
                # TYPE depth gauge
                depth -4
                # HELP load Computed.
                # TYPE load gauge
                load 0.5

                """#)
    }

    @Test func `histogram buckets are cumulative and exact at powers of two`() {
        let metrics = Metrics()
        let histogram = metrics.histogram("latency_seconds", "Time.", ["hop": "a"])
        for us in [1, 63, 64, 127, 128, 100_000_000] as [UInt64] { histogram.record(ns: us * 1000) }
        let text = String(decoding: metrics.render(), as: UTF8.self)
        #expect(text.contains(#"latency_seconds_bucket{hop="a",le="6.4e-05"} 2"#))
        #expect(text.contains(#"latency_seconds_bucket{hop="a",le="0.000128"} 4"#))
        #expect(text.contains(#"latency_seconds_bucket{hop="a",le="0.000256"} 5"#))
        #expect(text.contains(#"latency_seconds_bucket{hop="a",le="67.108864"} 5"#))
        #expect(text.contains(#"latency_seconds_bucket{hop="a",le="+Inf"} 6"#))
        #expect(text.contains(#"latency_seconds_count{hop="a"} 6"#))
    }

    @Test func `quotes and line ends are escaped also where a character joins them with what follows`() {
        let metrics = Metrics()
        _ = metrics.counter("a_total", "one\r\ntwo", ["name": "\"\u{301}x\r\ny\\\u{301}"])
        let text = String(decoding: metrics.render(), as: UTF8.self)
        let lines = text.utf8.split(separator: UInt8(ascii: "\n")).map { String($0) ?? "" }
        #expect(
            lines == [
                "# HELP a_total one\r\\ntwo", "# TYPE a_total counter",
                "a_total{name=\"\\\"\u{301}x\r\\ny\\\\\u{301}\"} 0",
            ])
    }

    @Test func `ten thousand series are registered without looking at each other`() {
        let metrics = Metrics()
        let start = ContinuousClock.now
        for index in 0..<10_000 { metrics.counter("many_total", "Many", ["n": "\(index)"]).add() }
        // Looking at all earlier ones takes a minute.
        #expect(ContinuousClock.now - start < .seconds(20))
        #expect(String(decoding: metrics.render(), as: UTF8.self).utf8.count { $0 == UInt8(ascii: "\n") } == 10_002)
    }

    @Test func `quantiles are within 7 percent of the truth`() {
        let histogram = Histogram()
        for us in 1...100_000 { histogram.record(ns: UInt64(us) * 1000) }
        let snapshot = histogram.snapshot()
        for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let truth = share * 100_000
            #expect(abs(snapshot.quantileUs(share) - truth) <= truth * 0.07)
        }
        #expect(snapshot.total == 100_000)
        #expect(Histogram().snapshot().quantileUs(0.5) == 0)
    }

    @Test func `a difference of snapshots holds only what came between`() {
        let histogram = Histogram()
        histogram.record(ns: 1_000_000)
        let before = histogram.snapshot()
        histogram.record(ns: 5_000_000, count: 3)
        let difference = histogram.snapshot().since(before)
        #expect(difference.total == 3)
        #expect(difference.quantileUs(0.5) >= 5000)
    }
}

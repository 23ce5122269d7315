import Foundation
import History
import KafkaClient
import Runtime
import System
import TestSupport
import Testing
import Wire

@Suite struct BenchmarkTests {
    @Test func `the benchmark fills a database, times every read and stores on top of it`() throws {
        var benchmark = HistoryBenchmark(
            kafka: KafkaConfiguration(bootstrapServers: try TestKafka.shared().address),
            postgres: try PostgresCluster.shared().freshDatabase(), log: .none, clock: SystemClock())
        benchmark.messageCount = 30_000
        benchmark.chatCount = 300
        benchmark.storedCount = 3_000
        benchmark.readCount = 20
        let report = try benchmark.run()
        #expect(report.reads.count == 7 && report.reads.allSatisfy { 0 < $0.p50Ms && $0.p50Ms <= $0.p99Ms })
        #expect(abs(report.messagesPerSync - 1_000) < 100, "\(report.messagesPerSync)")
        #expect(report.storedPerSecond > 0 && report.sinkCPUMicroseconds > 0)
        var json = JSONWriter()
        report.write(to: &json)
        #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(json.bytes)) }
        for read in report.reads { #expect(report.text.contains(read.name)) }
    }
}

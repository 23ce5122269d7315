import Foundation
import TestSupport
import Testing

/// Apache Kafka's own clients, which are not installed with the others: `FANOUT_TEST_JAVA_KAFKA` names a directory that holds
/// the jars of a distribution (its `libs`), of release 4.0 or newer. `JavaClients.java` holds what they do.
@Suite struct JavaInteropTests {
    static let libraries = ProcessInfo.processInfo.environment["FANOUT_TEST_JAVA_KAFKA"].flatMap {
        $0.isEmpty ? nil : $0
    }

    @Test(.enabled(if: libraries != nil, "FANOUT_TEST_JAVA_KAFKA names no directory with Apache Kafka's jars"))
    func `Apache Kafka's own clients find what they expect`() throws {
        let kafka = try TestKafka.start()
        let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "JavaClients.java").path
        let java = try FanoutProcess(
            ["-cp", "\(Self.libraries ?? "")/*", source, kafka.address],
            environment: kafka.isEmbedded ? ["EXPECT_LEFT_OUT": "1"] : [:], program: "java")
        let status = java.waitForExit(seconds: 600)
        if status == nil { java.kill() }
        #expect(status == 0 && java.text.contains("checks passed"), "\(java.text.suffix(8000))")
        kafka.stop()
    }
}

-- A schema with all that a dump may fail on, created by root, with definers that are other accounts.
SET foreign_key_checks = 0;
CREATE TABLE a_child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES z_parent (id) ON DELETE CASCADE);
SET foreign_key_checks = 1;
CREATE TABLE z_parent (id INT PRIMARY KEY);
INSERT INTO z_parent VALUES (1);
INSERT INTO a_child VALUES (1, 1);
CREATE TABLE `order` (
  `select` INT PRIMARY KEY AUTO_INCREMENT,
  `group by` VARCHAR(40) NOT NULL,
  price DECIMAL(8, 2) NOT NULL,
  `total ä` DECIMAL(9, 2) GENERATED ALWAYS AS (price * 2) STORED,
  twice INT GENERATED ALWAYS AS (price * 2) VIRTUAL,
  note TEXT,
  KEY (`group by`)
) AUTO_INCREMENT = 7;
INSERT INTO `order` (`group by`, price, note) VALUES
  ('grüße 日本語 👩‍🚀', 1.5, 'it''s \\ "q" \n\r\n\0\Z CREATE DEFINER=`x`@`y`'), ('', 2, NULL);
CREATE TABLE `key` (
  id BINARY(16) PRIMARY KEY, data LONGBLOB, bits BIT(3), document JSON, made TIMESTAMP(6) NOT NULL
);
-- 40 MiB, of which each byte takes two in the dump.
INSERT INTO `key` VALUES
  (UNHEX(REPEAT('00FF', 8)), REPEAT(UNHEX('00'), 40 << 20), b'101', '{"a": "ä"}', '2026-11-29 10:15:00.123456'),
  (UNHEX(REPEAT('0A', 16)), UNHEX('00010A0D1A22275C60FFFEC3'), b'000', NULL, '2026-11-29 10:15:00');
CREATE TABLE parts (id INT, made DATE) PARTITION BY RANGE (YEAR(made))
  (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts VALUES (1, '2019-01-01'), (2, '2024-02-02');
CREATE DEFINER = gone@localhost VIEW z_view AS SELECT `select` AS `from`, `total ä` FROM `order`;
CREATE DEFINER = gone@localhost VIEW `a view` AS SELECT COUNT(*) AS n FROM z_view;
CREATE SQL SECURITY INVOKER VIEW m_view AS SELECT n FROM `a view`;
delimiter //
CREATE DEFINER = gone@localhost TRIGGER `be fore` BEFORE INSERT ON `order` FOR EACH ROW BEGIN
  SET NEW.note = CONCAT(COALESCE(NEW.note, ''), '; x');
END//
CREATE DEFINER = gone@localhost PROCEDURE `count orders` (OUT n INT) BEGIN
  SELECT COUNT(*) INTO n FROM `order`;
END//
CREATE DEFINER = gone@localhost FUNCTION doubled (n INT) RETURNS INT DETERMINISTIC RETURN n * 2//
CREATE DEFINER = gone@localhost EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DO BEGIN
  DELETE FROM `order` WHERE price > 100;
END//
delimiter ;
